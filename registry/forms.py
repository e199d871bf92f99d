"""The forms in which a repository offers models, found in its listing: GGUF, adapter, GPTQ, safetensors, .bin, GGML."""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from .hub import RemoteFile

_QUANTIZATION = re.compile(
    r"(?i)(?:^|[-._ ])(I?Q\d_(?:K_[SMLX]+|XXS|XS|NL|[KSM0-3])|TQ\d_0|MXFP4|BF16|F16|F32|FP16)(?=[-._ ]|$)"
)
_PART = re.compile(r"-(\d{5})-of-(\d{5})(?=\.\w+$)")
_SIDE = re.compile(r"(?i)mmproj|imatrix|ggml-vocab")
_SETTINGS = re.compile(r"[^/]+\.(json|jinja|py|model)|merges\.txt|vocab\.txt")


@dataclass(frozen=True, slots=True)
class Option:
    """One model that a repository offers: `tag` chooses it (ORG/REPO:TAG)."""

    tag: str
    files: tuple[RemoteFile, ...]

    @property
    def size(self) -> int:
        """Bytes of all its files."""
        return sum(file.size for file in self.files)


def quantization(name: str) -> str:
    """Give the quantization that a file's name tells, in GGUF's spelling, or nothing."""
    found = _QUANTIZATION.findall(re.sub(r"\.(gguf|bin)$", "", name.rpartition("/")[2]))
    return found[-1].upper().replace("FP16", "F16") if found else ""


def _ggufs(files: Iterable[RemoteFile], _name: str) -> list[Option]:
    return _builds(file for file in files if file.name.endswith(".gguf") and not _SIDE.search(file.name))


def _ggmls(files: Iterable[RemoteFile], _name: str) -> list[Option]:
    return _builds(file for file in files if re.search(r"(?i)ggml\w*\.[^/]*\.bin$|ggml-model-[^/]*\.bin$", file.name))


def _builds(files: Iterable[RemoteFile]) -> list[Option]:
    groups: dict[str, list[RemoteFile]] = {}
    for file in sorted(files, key=lambda file: file.name):
        groups.setdefault(_PART.sub("", file.name), []).append(file)
    return [Option(quantization(name), tuple(parts)) for name, parts in groups.items() if _complete(parts)]


def _adapters(files: tuple[RemoteFile, ...], _name: str) -> list[Option]:
    names = {file.name: file for file in files}
    weights = next((names[n] for n in ("adapter_model.safetensors", "adapter_model.bin") if n in names), None)
    if weights and "adapter_config.json" in names:
        return [Option("", (names["adapter_config.json"], weights))]
    checkpoint = weights or names.get("pytorch_model.bin")
    if checkpoint and "config.json" not in names and checkpoint.size < 2 << 30:  # a training checkpoint of 2023
        return [Option("", (checkpoint,))]
    return []


def _gptqs(files: tuple[RemoteFile, ...], name: str) -> list[Option]:
    names = {file.name for file in files}
    if "quantize_config.json" not in names and not re.search(r"(?i)gptq|\dbit[-_]\d+g", name):
        return []
    weights = [file for file in files if re.fullmatch(r"[^/]+\.(safetensors|pt)", file.name)]
    shards = [file for file in weights if _PART.search(file.name)]
    if shards:
        return [Option("", _with_settings(files, shards))]
    weights.sort(key=lambda file: (_gptq_order(file.name), file.name))
    return [Option(_stem(file.name), _with_settings(files, [file])) for file in weights]


def _safetensors(files: tuple[RemoteFile, ...], _name: str) -> list[Option]:
    return _full(files, r"(?!adapter_|consolidated)[^/]+\.safetensors", "model")


def _pickles(files: tuple[RemoteFile, ...], _name: str) -> list[Option]:
    return _full(files, r"pytorch_model[^/]*\.bin", "pytorch_model")


def _full(files: tuple[RemoteFile, ...], pattern: str, name: str) -> list[Option]:
    """Give a whole model: its shards, else the one file `name`, else the only file there is."""
    weights = [file for file in files if re.fullmatch(pattern, file.name)]
    shards = [file for file in weights if re.match(rf"{name}-\d{{5}}-of", file.name)]
    single = [file for file in weights if file.name.rpartition(".")[0] == name]
    chosen = (shards if shards and _complete(shards) else []) or single or (weights if len(weights) == 1 else [])
    if not chosen or "config.json" not in {file.name for file in files}:
        return []
    return [Option("", _with_settings(files, chosen))]


FORMS: tuple[tuple[str, Callable[[tuple[RemoteFile, ...], str], list[Option]]], ...] = (
    ("gguf", _ggufs), ("adapter", _adapters), ("gptq", _gptqs), ("safetensors", _safetensors),
    ("safetensors", _pickles), ("ggml", _ggmls),
)  # fmt: skip
"""Kind → how to find such models in a listing; the first that finds any is taken."""


def _with_settings(files: Iterable[RemoteFile], weights: list[RemoteFile]) -> tuple[RemoteFile, ...]:
    endings = {file.name.rpartition(".")[2] for file in weights}
    settings = [file for file in files if _SETTINGS.fullmatch(file.name) and not _foreign_index(file.name, endings)]
    settings.sort(key=lambda file: (file.name != "config.json", file.name))
    return (*settings, *sorted(weights, key=lambda file: file.name))


def _foreign_index(name: str, endings: set[str]) -> bool:
    """Tell whether `name` is the index of weights in another form than those chosen."""
    index = re.fullmatch(r".+\.(\w+)\.index\.json", name)
    return bool(index and index[1] not in endings)


def _gptq_order(name: str) -> int:
    """Of the builds that one GPTQ repository of 2023 holds, the one that most programs read comes first."""
    words = ("gptq_model", "compat.no-act", "no-act")
    return -1 if _stem(name) == "model" else next((n for n, word in enumerate(words) if word in name), len(words))


def _stem(name: str) -> str:
    return name.rpartition(".")[0]


def _complete(parts: list[RemoteFile]) -> bool:
    """Tell whether every part of a split model is listed."""
    match = _PART.search(parts[0].name)
    return match is None or len(parts) == int(match[2])
