"""What a file or folder is, told from its first bytes and its header, without torch and without loading it."""

import re
from math import prod
from pathlib import Path

from ..core.errors import FormatError
from ..core.i18n import _
from . import folder, ggml, header, special, weights
from .kind import Sniffed, magic

_FTYPES = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 10: "Q2_K", 11: "Q3_K_S",
    12: "Q3_K_M", 13: "Q3_K_L", 14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S", 17: "Q5_K_M", 18: "Q6_K", 19: "IQ2_XXS",
    20: "IQ2_XS", 21: "Q2_K_S", 22: "IQ3_XS", 23: "IQ3_XXS", 24: "IQ1_S", 25: "IQ4_NL", 26: "IQ3_S", 27: "IQ3_M",
    28: "IQ2_S", 29: "IQ2_M", 30: "IQ4_XS", 31: "IQ1_M", 32: "BF16", 36: "TQ1_0", 37: "TQ2_0", 38: "MXFP4",
    39: "NVFP4", 40: "Q1_0", 41: "Q2_0",
}  # fmt: skip
"""general.file_type → name (llama_ftype)."""
_ENCODERS = frozenset({"gemma-embedding", "t5encoder", "wavtokenizer-dec"})


def sniff(path: Path) -> Sniffed:
    """Tell what `path` is; never raises for what is in it."""
    try:
        target = _target(path)
        return folder.sniff(target) if target.is_dir() else _file(target)
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: a zero byte in the path
        return Sniffed(path, "missing")
    except header.CutShort as error:
        return Sniffed(path, "truncated", error.message, size=error.size, expected=error.expected)
    except FormatError as error:
        return Sniffed(path, "damaged", error.message)
    except OSError as error:
        return Sniffed(path, "unreadable", error.strerror or "")


def _target(path: Path) -> Path:
    """Give the folder of a weights file that belongs to one, the only GGUF in a folder, or `path` itself."""
    if path.is_dir():
        models = [file for file in path.glob("*.gguf") if "-of-" not in file.name or "-00001-of-" in file.name]
        return models[0] if len(models) == 1 and not (path / "config.json").is_file() else path
    if path.suffix == ".safetensors" and any((path.parent / name).is_file() for name in folder.SETTINGS):
        return path.parent
    if re.fullmatch(r"pytorch_model[\w-]*\.bin", path.name) and (path.parent / "config.json").is_file():
        return path.parent
    return path


def _file(path: Path) -> Sniffed:
    if path.exists() and not path.is_file():
        return Sniffed(path, "unknown")
    with path.open("rb") as file:
        start = file.read(1024)
    kind, detail = magic(start)
    if kind == "gguf":
        return _gguf(path)
    if kind == "ggml":
        return _ggml(path)
    if kind in ("weights", "torch", "pickle"):
        return weights.sniff(path)
    detail = _pointed(start) if kind == "lfs" else detail
    return Sniffed(path, kind, detail, size=path.stat().st_size)


def _pointed(start: bytes) -> str:
    """Give the bytes of the real file that a git-lfs pointer names (https://git-lfs.com, specification)."""
    size = re.search(rb"\nsize (\d{1,15})\n", start)
    return str(int(size[1])) if size else ""


def _ggml(path: Path) -> Sniffed:
    found = ggml.read(path)
    return Sniffed(
        path,
        "ggml",
        found.title,
        architecture="llama" if found.layers else "",
        quantization=found.quantization,
        parameters=found.parameters or None,
        size=found.size,
        expected=found.expected or None,
        files=tuple(part for part in found.parts if part.is_file()),
        variant="adapter" if found.kind == "GGLA" else "convertible" if found.convertible else "",
    )


def _gguf(path: Path) -> Sniffed:
    found = header.read(path)
    parts = _parts(path, found)
    heads = [found, *(header.read(part) for part in parts[1:])]
    for head in heads:
        if head.size < head.expected:
            raise header.CutShort(head.path, head.size, head.expected)
    context, finding = found.number("ARCH.context_length"), special.gguf(found)
    return Sniffed(
        path,
        _use(found),
        f"GGUF v{found.version}",
        found.architecture,
        _quantization(found),
        int(context) if context else None,
        sum(prod(tensor.shape) for head in heads for tensor in head.tensors),
        sum(head.size for head in heads),
        sum(head.expected for head in heads),
        tuple(parts),
        found,
        notices=finding.notices,
        generation={"stop_token_ids": finding.stop} if finding.stop else {},
    )


def _use(found: header.Header) -> str:
    """Give what a GGUF is for: a model or an adapter, or one of the files that cannot be talked to."""
    kind, architecture = found.text("general.type"), found.architecture
    if kind == "adapter":
        return "adapter"
    if kind == "mmproj" or architecture == "clip":
        return "projector"
    if kind == "imatrix" or any(tensor.name.endswith(".in_sum2") for tensor in found.tensors[:8]):
        return "imatrix"
    if "bert" in architecture or architecture in _ENCODERS or found.number("ARCH.pooling_type"):
        return "embedding"
    return "gguf" if found.tensors else "vocabulary"


def _parts(path: Path, found: header.Header) -> list[Path]:
    """Give the files of a split model, NAME-00001-of-00003.gguf and so on. Raises FormatError when one is missing."""
    count = found.number("split.count") or 1
    match = re.fullmatch(r"(.+-)\d{5}(-of-(\d{5})\.gguf)", path.name)
    if count == 1 or not match or int(match[3]) != count:
        return [path]
    parts = [path.with_name(f"{match[1]}{n:05}{match[2]}") for n in range(1, int(count) + 1)]
    for part in parts:
        if not part.is_file():
            raise FormatError(_("{folder} lacks {name}.").format(folder=path.parent, name=part.name))
    return parts


def _quantization(found: header.Header) -> str:
    kind = found.number("general.file_type")
    if kind in _FTYPES:
        return _FTYPES[int(kind)]
    sizes: dict[str, int] = {}
    for tensor in found.tensors:
        name = header.TYPES.get(tensor.kind, ("?",))[0]
        sizes[name] = sizes.get(name, 0) + tensor.size
    return max(sizes, key=lambda name: sizes[name], default="")
