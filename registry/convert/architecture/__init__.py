"""What each architecture's weights and settings are called in GGUF: one file each.

A file has `design(config, path)`, which gives the Design of the model that config.json at `path` describes.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ....core.errors import FormatError
from ....core.i18n import _
from ..layout import Place

if TYPE_CHECKING:
    import gguf
    import numpy as np

MODULES = {
    "LlamaForCausalLM": "llama", "LLaMAForCausalLM": "llama", "MistralForCausalLM": "mistral",
    "Qwen2ForCausalLM": "qwen2", "FalconForCausalLM": "falcon", "RWForCausalLM": "falcon", "MPTForCausalLM": "mpt",
    "MptForCausalLM": "mpt", "BloomForCausalLM": "bloom", "BloomModel": "bloom",
}  # fmt: skip
"""Hugging Face's class → file of this folder."""
KINDS = {
    "llama": "llama", "mistral": "mistral", "qwen2": "qwen2", "falcon": "falcon", "RefinedWeb": "falcon",
    "RefinedWebModel": "falcon", "mpt": "mpt", "bloom": "bloom",
}  # fmt: skip
"""model_type → file, for a config.json that names no class."""


@dataclass(frozen=True, slots=True)
class Design:
    """A model in GGUF: `name` is general.architecture, `places` by the names of Hugging Face.

    `embedding` names the weight whose rows are the vocabulary, `prefix` what some checkpoints leave out of their
    names, `derived` endings of weights that repeat what the others hold. `extras` are float32 tensors of its own.
    """

    name: str
    places: Mapping[str, Place]
    describe: "Callable[[gguf.GGUFWriter], None]"
    embedding: str
    head_dim: int = 0
    prefix: str = ""
    derived: tuple[str, ...] = ()
    extras: "Mapping[str, np.ndarray] | None" = None
    notices: tuple[str, ...] = ()


def find(config: Mapping[str, Any], path: Path) -> Design:
    """Give the design of the model that the config.json at `path` describes. Raises FormatError."""
    from importlib import import_module

    classes, kind = config.get("architectures"), config.get("model_type")
    named = classes[0] if isinstance(classes, list) and classes else None
    module = MODULES.get(str(named)) if named else KINDS.get(str(kind))
    if module is None:
        raise FormatError(
            _("{path} describes a {architecture}, for which vigtui has no conversion yet.").format(
                path=path, architecture=named or kind or "?"
            ),
            _("It converts {names}. Pull a GGUF build of this model, or run it with the transformers backend.").format(
                names=", ".join(sorted(set(KINDS.values())))
            ),
        )
    if config.get("quantization_config"):
        raise unsupported(path, _("its weights are quantized already"))
    return import_module(f".{module}", __name__).design(config, path)


def unsupported(path: Path, problem: str) -> FormatError:
    """Give the error for a model that a GGUF file cannot hold: `problem` says why."""
    return FormatError(
        _("{path} cannot be converted: {problem}.").format(path=path.parent, problem=problem),
        _("Pull a GGUF build of this model, or run it with the transformers backend."),
    )


def refuse(config: Mapping[str, Any], path: Path, wanted: Mapping[str, tuple[Any, ...]]) -> None:
    """Raise FormatError for the first setting that is there with another value than `wanted` allows."""
    for name, values in wanted.items():
        if name in config and config[name] not in values:
            raise unsupported(path, _("{name} is {value}").format(name=name, value=config[name]))


def both(places: dict[str, Place], source: str, target: str, shape: tuple[int, ...], **how: Any) -> None:
    """Add a weight and its bias."""
    places[f"{source}.weight"] = Place(f"{target}.weight", shape, **how)
    places[f"{source}.bias"] = Place(f"{target}.bias", shape[:1], **how)
