"""The folder that gptqmodel reads, weights as safetensors, and the one that is made of what it writes."""

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..convert import shards, weights
from ..convert.safetensors import Tensor
from ..header import CutShort
from ..merge import files
from .gptq_source import BLOCK, Source, size

NAMES = {"F16": "float16", "BF16": "bfloat16"}
_META = ("quantizer", "uri", "act_group_aware")
_USUAL = ("transformer.h", "model.decoder.layers", "gpt_neox.layers", "model.layers")
_PIECE = 8 << 20


def stage(source: Source, place: Path) -> bool:
    """Fill the new folder `place` with the model, weights as safetensors; tell whether its files lie in there.

    Weights are linked, or converted where they are PyTorch's: the library must not unpickle them.
    """
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    files.copy(files.choose(source.folder, None), place, None)
    paths = sorted({tensor.path for tensor in source.tensors.values()})
    if any(path.suffix != ".safetensors" for path in paths):
        shards.safetensors(place, [_kept(tensor) for tensor in source.tensors.values()], lambda: None)
        return True
    inside = [_link(path, place / path.name) for path in paths]
    listing = {"metadata": {}, "weight_map": {name: tensor.path.name for name, tensor in source.tensors.items()}}
    if [path.name for path in paths] != ["model.safetensors"]:
        (place / "model.safetensors.index.json").write_text(json.dumps(listing))
    return all(inside)


def _kept(tensor: Tensor, dtype: str = "", name: str = "") -> shards.Written:
    """Give a tensor to write as it is, or as `dtype` (F16 or BF16) where it has more bits."""
    narrower = dtype and tensor.dtype in ("F32", "F64")
    return shards.Written(
        name or tensor.name,
        dtype if narrower else tensor.dtype,
        tensor.shape,
        lambda: _narrow(tensor, dtype) if narrower else _bytes(tensor),
    )


def _narrow(tensor: Tensor, dtype: str) -> Iterator[bytes]:
    import numpy as np  # only when weights are read

    most = np.finfo(np.float16).max
    for piece in _bytes(tensor):
        values = np.frombuffer(piece, {"F32": "<f4", "F64": "<f8"}[tensor.dtype])
        if dtype == "F16":
            yield np.clip(values, -most, most).astype("<f2").tobytes()
        else:
            whole = values.astype("<f4").view("<u4")
            yield ((whole + 0x7FFF + (whole >> 16 & 1)) >> 16).astype("<u2").tobytes()  # round half to even


def _bytes(tensor: Tensor) -> Iterator[bytes]:
    with tensor.path.open("rb") as file:
        file.seek(tensor.begin)
        left = size(tensor)
        while left:
            piece = file.read(min(left, _PIECE))
            if not piece:
                raise CutShort(tensor.path, tensor.path.stat().st_size, tensor.end)
            left -= len(piece)
            yield piece


def _link(path: Path, target: Path) -> bool:
    """Make `target` the same file; where that cannot be, a link to it, and False."""
    try:
        os.link(path.resolve(), target)
        return True
    except OSError:
        target.symlink_to(path.resolve())
        return False


def half(source: Source) -> str:
    """Give the dtype of what is not packed: that of the source, F16 for one of more bits, which kernels lack."""
    sizes: dict[str, int] = {}
    for tensor in source.linears.values():
        sizes[tensor.dtype] = sizes.get(tensor.dtype, 0) + size(tensor)
    most = max(sizes, key=lambda name: sizes[name])
    return "F16" if most in ("F32", "F64") else most


def write(source: Source, made: Path, folder: Path, **said: Any) -> None:
    """Fill `folder`: packed layers from `made`, all else from the source, which the library only copies.

    `said` is what quantize_config.json says besides, as AutoGPTQ did.
    """
    dtype = half(source)
    outputs: list[shards.Written] = []
    for name, tensor in sorted(weights.index(made).items()):
        ours = next((source.tensors[one] for one in _names(name) if one in source.tensors), tensor)
        outputs.append(_kept(ours if ours.shape == tensor.shape else tensor, dtype, name))
    shards.safetensors(folder, outputs, lambda: None)
    files.copy(files.choose(source.folder, None), folder, None)
    described = _described(json.loads((made / "quantize_config.json").read_text()), said | _blocks(outputs))
    config = {**source.config, "quantization_config": described}
    if any(config.get(name) in ("float32", "float64") for name in ("dtype", "torch_dtype")):
        config = {**config, **{name: NAMES[dtype] for name in ("dtype", "torch_dtype") if name in config}}
    (folder / "config.json").write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    (folder / "quantize_config.json").write_text(json.dumps(described, indent=2) + "\n")


def _blocks(outputs: Sequence[shards.Written]) -> dict[str, str]:
    """Say where the blocks are, for transformers, which looks in a few usual places only."""
    names = (output.name for output in outputs if output.name.endswith(".qweight"))
    found = next((place for name in names if (place := BLOCK.search(name))), None)
    prefix = found.string[: found.start(1) - 1] if found else ""
    return {"block_name_to_quantize": prefix} if prefix and prefix not in _USUAL else {}


def _names(name: str) -> tuple[str, ...]:
    """Give how a tensor may be called in the source: some older checkpoints leave the first part of names out."""
    return name, name.removeprefix("transformer."), name.removeprefix("model.")


def _described(made: Mapping[str, Any], said: Mapping[str, Any]) -> dict[str, Any]:
    """Give quantize_config.json without the paths of this machine."""
    meta = {name: value for name, value in made.get("meta", {}).items() if name in _META}
    return {**made, **said, "true_sequential": True, "static_groups": False, "meta": meta}
