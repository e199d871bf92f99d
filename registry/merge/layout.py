"""The files of the merged weights: the base's own names and shards, and the index that lists them."""

import json
from collections.abc import Callable, Mapping
from functools import partial
from math import prod
from pathlib import Path

from ...core.errors import FormatError
from ...core.i18n import _
from .. import document
from ..convert import shards, weights
from ..convert.safetensors import ITEM, Tensor
from .change import Change, pieces
from .place import Places

Shards = Mapping[str, list[tuple[Tensor, Change]]]
"""File name → the base's tensors in it, in its order, with what is done to each."""
_INDEX = "model.safetensors.index.json"


def shape(base: Path, places: Places) -> Shards:
    """Give the shards of the merged model; a PyTorch file becomes the safetensors of its name.

    Raises FormatError for a type of numbers that safetensors does not define a size for.
    """
    found: dict[str, list[tuple[Tensor, Change]]] = {path.name: [] for path in weights.files(base)}
    for tensor in sorted(places.tensors.values(), key=lambda tensor: (tensor.path.name, tensor.begin, tensor.name)):
        if tensor.dtype not in ITEM:
            raise FormatError(
                _("{path} stores {name} as {dtype}, which nothing can be merged into.").format(
                    path=base, name=tensor.name, dtype=tensor.dtype
                ),
                _("Start from weights in F32, F16 or BF16."),
            )
        found[tensor.path.name].append((tensor, places.changes.get(tensor.name) or Change(tensor)))
    return {_renamed(name): entries for name, entries in found.items()}


def _renamed(name: str) -> str:
    if not name.endswith(".bin"):
        return name
    return f"{name.removesuffix('.bin')}.safetensors".replace("pytorch_model", "model")


def size(tensor: Tensor, change: Change) -> int:
    """Give the bytes of a tensor as it will be."""
    return prod(change.source.shape) * ITEM[tensor.dtype]


def write(found: Shards, base: Path, target: Path, report: Callable[[], None]) -> None:
    """Write the shards and their index into the folder `target`; `report` is called after each tensor."""
    for name, entries in found.items():
        shards.file(target / name, [_written(*entry) for entry in entries], report)
    if list(found) != ["model.safetensors"]:
        _write_index(found, base, target)


def _written(tensor: Tensor, change: Change) -> shards.Written:
    return shards.Written(tensor.name, tensor.dtype, change.source.shape, partial(pieces, change, tensor.dtype))


def _write_index(found: Shards, base: Path, target: Path) -> None:
    entries = [entry for listed in found.values() for entry in listed]
    known = document.optional(base / _INDEX).get("metadata")
    metadata = known if isinstance(known, dict) else {}
    metadata["total_size"] = sum(size(*entry) for entry in entries)
    if "total_parameters" in metadata:
        metadata["total_parameters"] = sum(prod(change.source.shape) for _tensor, change in entries)
    places = {tensor.name: name for name, listed in found.items() for tensor, _change in listed}
    listing = {"metadata": metadata, "weight_map": dict(sorted(places.items()))}
    (target / _INDEX).write_text(json.dumps(listing, indent=2) + "\n", encoding="utf-8")
