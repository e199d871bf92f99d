"""What a folder is: a Hugging Face model (safetensors or .bin), GPTQ or AWQ, a PEFT adapter, or nothing to load."""

import re
from collections.abc import Mapping
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any

from ..core.errors import FormatError
from ..core.i18n import _
from . import document, packing, special, weights
from .convert import safetensors
from .kind import Sniffed, magic

SETTINGS = ("adapter_config.json", "config.json")
_READERS = frozenset(
    {"bert", "camembert", "deberta-v2", "distilbert", "modernbert", "mpnet", "nomic_bert", "roberta", "xlm-roberta"}
)
"""model_type of what reads text and writes none."""


def sniff(path: Path) -> Sniffed:
    """Tell what the folder `path` is. Raises FormatError for what is damaged in it."""
    if (path / "adapter_config.json").is_file():
        return _adapter(path)
    if (path / "config.json").is_file():
        return _transformers(path)
    if shards := sorted(path.glob("consolidated.*.pth")):
        return _meta(path, shards)
    if file := _held(path):
        return weights.sniff(file)
    several = _("It holds several GGUF files: name one of them.") if any(path.glob("*.gguf")) else ""
    return Sniffed(path, "folder", several)


def _held(path: Path) -> Path | None:
    """Give the file with an adapter's weights: trainers of 2023 left an empty adapter_model.bin beside the real one."""
    names = ("adapter_model.safetensors", "adapter_model.bin", "pytorch_model.bin")
    files = [path / name for name in names if (path / name).is_file()]
    return next((file for file in files[:-1] if weights.sniff(file).kind != "hollow"), files[-1] if files else None)


def _adapter(path: Path) -> Sniffed:
    config = _json(path / "adapter_config.json")
    file = _held(path)
    if file is None:
        return Sniffed(path, "folder", _("It lacks adapter_model.safetensors."), config=config)
    pickled = file.suffix == ".bin"
    if pickled and (found := weights.sniff(file)).variant != "adapter":
        return found
    tensors = _torch(file) if pickled else _shard(path, file)
    if weights.without_effect(tensors):
        return Sniffed(path, "hollow", config=config, size=file.stat().st_size)
    return Sniffed(
        path,
        "adapter",
        f"PEFT {config.get('peft_type', 'LORA')}",
        quantization=_dtype(tensors),
        parameters=sum(prod(tensor.shape) for tensor in tensors.values()),
        size=file.stat().st_size,
        files=(path / "adapter_config.json", file),
        config=config,
        notices=(_unpickled(),) if pickled else (),
    )


def _torch(file: Path) -> Mapping[str, safetensors.Tensor]:
    from .convert import torchzip  # 10 ms, of which a listing has no use

    return torchzip.tensors(file)


def _unpickled() -> str:
    return _("Its weights are PyTorch files (.bin): they are read, and nothing in them is run.")


def _meta(path: Path, shards: list[Path]) -> Sniffed:
    """Tell of Meta's own checkpoint: params.json, and one file for each GPU that it was trained on."""
    for file in shards:
        weights.sniff(file)
    lacking = [name for name in ("params.json",) if not (path / name).is_file()]
    if not any((folder / "tokenizer.model").is_file() for folder in (path, path.parent)):
        lacking.append("tokenizer.model")
    lacks = _("It lacks {names}.").format(names=", ".join(lacking)) if lacking else ""
    return Sniffed(path, "meta", lacks, size=sum(file.stat().st_size for file in shards), files=tuple(shards))


def _transformers(path: Path) -> Sniffed:
    config = _json(path / "config.json")
    files = [file for file in safetensors.shards(path) if file.name != "model.safetensors" or file.is_file()]
    files = files or sorted(path.glob("*.safetensors"))
    named = config.get("architectures")
    architecture = str(named[0] if isinstance(named, list) and named else config.get("model_type", ""))
    if str(config.get("model_type")) in _READERS or (path / "modules.json").is_file():
        return Sniffed(path, "embedding", architecture=architecture, config=config)
    if not files:
        return _pickles(path, architecture, config)
    tensors: dict[str, safetensors.Tensor] = {}
    for file in files:
        tensors |= _shard(path, file)
    packed = _packing(path, config, tensors)
    kind = packed.method if packed else "safetensors"
    found = Sniffed(
        path,
        kind,
        architecture=architecture,
        quantization=packed.name if packed and packed.bits else kind.upper() if packed else _dtype(tensors),
        parameters=None if packed else sum(prod(t.shape) for t in tensors.values()),
    )
    return _model(found, config, files)


def _pickles(path: Path, architecture: str, config: Mapping[str, Any]) -> Sniffed:
    """Tell of a folder whose weights are PyTorch files: a model like any other, where they hold plain weights."""
    from .convert import weights as shards  # 10 ms, of which a listing has no use

    files = [file for file in shards.files(path) if file.suffix == ".bin"] or sorted(path.glob("*.pt"))
    if not files:
        return Sniffed(path, "folder", architecture=architecture, config=config)
    for file in files:
        if not file.is_file():
            raise FormatError(_("{folder} lacks {name}.").format(folder=path, name=file.name))
    found = [weights.sniff(file) for file in files]
    other = next((one for one in found if one.kind != "torch" or one.variant or not one.parameters), None)
    if other or files[0].suffix != ".bin":
        return weights.moved(other or found[0], path, config, architecture)
    whole = Sniffed(path, "safetensors", parameters=sum(one.parameters or 0 for one in found), notices=(_unpickled(),))
    return _model(replace(whole, architecture=architecture, quantization=found[0].quantization), config, files)


def _model(found: Sniffed, config: Mapping[str, Any], files: list[Path]) -> Sniffed:
    """Complete what was found in the weights of a folder by what its settings say."""
    context = config.get("max_position_embeddings")
    finding = special.folder(found.path, config, lambda name: document.optional(found.path / name))
    return replace(
        found,
        context=context if type(context) is int and context > 0 else None,
        size=sum(file.stat().st_size for file in files),
        files=_beside(found.path, files),
        config=config,
        notices=(*found.notices, *_delta(found.path, config), *finding.notices),
        generation={"stop_token_ids": finding.stop} if finding.stop else {},
    )


def _shard(path: Path, file: Path) -> Mapping[str, safetensors.Tensor]:
    if not file.is_file():
        raise FormatError(_("{folder} lacks {name}.").format(folder=path, name=file.name))
    with file.open("rb") as opened:
        start = opened.read(1024)
    if magic(start)[0] in ("lfs", "html"):
        raise _pointer(file)
    return safetensors.whole(file)


def _packing(
    path: Path, config: Mapping[str, Any], tensors: Mapping[str, safetensors.Tensor]
) -> packing.Packing | None:
    """Give how the weights are packed: from the shapes of the tensors, then the settings; None for plain weights."""
    settings = config.get("quantization_config")
    settings = settings if isinstance(settings, dict) else {}
    beside = {name: document.optional(path / name) for name in ("quantize_config.json", "quant_config.json")}
    stated = [found for one in (settings, *beside.values()) if one and (found := packing.stated(one))]
    method = str(settings.get("quant_method", ""))
    if found := packing.inferred(tensors):
        order = next((one.act_order for one in stated if one.act_order is not None), None)
        return packing.Packing(found.method, found.bits, found.group, order)
    if method in ("gptq", "awq"):
        return stated[0] if stated else packing.Packing(method, 0, -1)
    if not any(name.endswith(".qweight") for name in tensors):
        return None
    return packing.Packing("awq" if (path / "quant_config.json").is_file() else "gptq", 0, -1)


def _delta(path: Path, config: Mapping[str, Any]) -> list[str]:
    named = f"{path.resolve()} {config.get('_name_or_path', '')}"
    if not re.search(r"(?i)\bdelta\b|-delta-v\d", named):
        return []
    return [_("These seem to be differences to another model (delta weights): alone they write gibberish.")]


def _beside(path: Path, files: list[Path]) -> tuple[Path, ...]:
    """Give what belongs to the model, config.json first."""
    names = ("*.json", "tokenizer.model", "*.jinja")
    others = {file for name in names for file in path.glob(name) if file.name != "config.json"}
    return (path / "config.json", *sorted(others), *files)


def _dtype(tensors: Mapping[str, safetensors.Tensor]) -> str:
    sizes: dict[str, int] = {}
    for tensor in tensors.values():
        sizes[tensor.dtype] = sizes.get(tensor.dtype, 0) + tensor.end - tensor.begin
    return max(sizes, key=lambda name: sizes[name], default="")


def _json(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        text = file.read(document.LIMIT + 1)
    if magic(text[:1024])[0] in ("lfs", "html"):
        raise _pointer(path)
    try:
        value = document.parse(text)
        if not isinstance(value, dict):
            raise ValueError("not an object")
    except ValueError as error:
        raise FormatError(_("{path} is damaged.").format(path=path)) from error
    return value


def _pointer(path: Path) -> FormatError:
    return FormatError(_("{path} is a web page or a git-lfs pointer, not the file itself.").format(path=path))
