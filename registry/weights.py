"""What one file of weights holds: PyTorch checkpoints, whole or an adapter, and safetensors."""

import re
from collections.abc import Mapping
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.i18n import _
from . import packing
from .convert import safetensors
from .kind import OLD_TORCH, Sniffed, magic

if TYPE_CHECKING:
    from .checkpoint import Tensor

_META = "layers.0.attention.wq.weight"
_LORA = re.compile(r"\.lora_(?:embedding_)?A(?:\.|$)")
_READ = 64 << 20


def sniff(path: Path) -> Sniffed:
    """Tell what the file `path` holds, by its first bytes, then by the names of its tensors. Raises FormatError."""
    with path.open("rb") as file:
        start = file.read(1024)
    kind, detail = magic(start)
    if kind == "weights":
        return _safetensors(path)
    if kind == "torch" or start.startswith(OLD_TORCH):
        return _torch(path)
    return Sniffed(path, kind, detail, size=path.stat().st_size)


def _safetensors(path: Path) -> Sniffed:
    tensors = safetensors.whole(path)
    size = path.stat().st_size
    adapter = not tensors or any(_LORA.search(name) for name in tensors)
    if adapter and without_effect(tensors):
        return Sniffed(path, "hollow", size=size, expected=size)
    return Sniffed(path, "weights", variant="adapter" if adapter else "", size=size, expected=size)


def _torch(path: Path) -> Sniffed:
    from . import checkpoint  # 10 ms, of which a listing has no use

    held = checkpoint.read(path)
    notices = ()
    if held.strange:
        sentence = _("Unpickling {name} would run {calls}: vigtui never does.")
        notices = (sentence.format(name=path.name, calls=", ".join(held.strange[:5])),)
    found = Sniffed(path, "torch", parameters=held.parameters, size=held.size, expected=held.expected, notices=notices)
    if held.strange:
        return replace(found, variant="strange", detail=", ".join(held.strange[:5]))
    if not held.tensors:
        return replace(found, kind="hollow") if held.empty else found
    if _META in held.tensors:
        return replace(found, kind="meta")
    if ranks := [tensor.shape[0] for name, tensor in held.tensors.items() if _LORA.search(name) and tensor.shape]:
        return replace(found, variant="adapter", detail=_("a LoRA adapter of rank {rank}").format(rank=max(ranks)))
    if packed := packing.inferred(held.tensors):
        return replace(found, variant="gptq", detail=packed.name, quantization=packed.name, parameters=None)
    return replace(found, quantization=_dtype(held.tensors))


def moved(found: Sniffed, path: Path, config: Mapping[str, Any], architecture: str = "") -> Sniffed:
    """Give what was found in one file as what is known of its folder `path`."""
    return replace(found, path=path, config=config, architecture=architecture, files=(found.path,))


def without_effect(tensors: Mapping[str, safetensors.Tensor]) -> bool:
    """Tell whether an adapter changes nothing: it holds no tensor, or every B is zero (its first 64 MiB)."""
    seconds = [tensor for name, tensor in tensors.items() if ".lora_B" in name]
    budget = _READ
    for tensor in seconds:
        with tensor.path.open("rb") as file:
            file.seek(tensor.begin)
            while (left := min(tensor.end - file.tell(), budget, 1 << 20)) > 0:
                if file.read(left).strip(b"\0\x80"):  # 0.0 and −0.0 in every type
                    return False
                budget -= left
    return not tensors or (bool(seconds) and budget > 0)


def _dtype(tensors: "Mapping[str, Tensor]") -> str:
    sizes: dict[str, int] = {}
    for tensor in tensors.values():
        sizes[tensor.dtype] = sizes.get(tensor.dtype, 0) + prod(tensor.shape)
    return max(sizes, key=lambda name: sizes[name], default="")
