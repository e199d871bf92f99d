"""What an adapter may be merged into, and under which names a base model is known."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...core.errors import FormatError
from ...core.i18n import _
from .. import check
from ..sniff import sniff


def require(base: Path) -> None:
    """Refuse a base that is no Hugging Face folder of plain weights, and say what to use instead.

    Raises FormatError or NotFoundError.
    """
    found = sniff(base)
    if found.kind == "safetensors" and base.is_dir() and not (found.config or {}).get("quantization_config"):
        return
    advice = _advice(base)
    if found.kind not in advice:
        raise check.refusal(found)
    title = found.detail or found.quantization or found.kind.upper()
    raise FormatError(
        _("Nothing can be merged into {path} ({title}).").format(path=base, title=title), advice[found.kind]
    )


def _advice(base: Path) -> dict[str, str]:
    """Give kind → the next step, in the language in force."""
    quantized = _("Apply the adapter at run time with --lora, or merge into the full weights and quantize again.")
    return {
        "gguf": _("Apply the adapter at run time with --lora, or pull the full weights and merge into those."),
        "ggml": _("Pull the full weights (safetensors) and merge into those."),
        "gptq": quantized,
        "awq": quantized,
        "safetensors": _("Merge into the full weights and quantize again."),
        "adapter": _("Give the base model first: vigtui merge BASE --lora ADAPTER."),
        "meta": _("`vigtui convert {path} --to hf` makes a folder that can be merged into.").format(path=base),
    }


def title(folder: Path) -> str:
    """Give what people call a folder: the repository whose snapshot it is in the hub's cache, else its own name."""
    cached = [part.removeprefix("models--") for part in folder.parts if part.startswith("models--")]
    return cached[-1].replace("--", "/") if cached else folder.name


def known_as(name: str, base: Path, config: Mapping[str, Any]) -> bool:
    """Tell whether `name`, a repository or a path, can mean this base: its folder, the repository in whose snapshot it
    lies in the hub's cache, or what its config.json says."""
    place = base.resolve()
    cached = [part.removeprefix("models--").rpartition("--")[2] for part in place.parts if part.startswith("models--")]
    stated = str(config.get("_name_or_path") or "")
    names = (base.name, place.name, f"{place.parent.name}-{place.name}", stated, *cached)
    return _last(name) in {_last(one) for one in names if one}


def _last(reference: str) -> str:
    return reference.rstrip("/").rpartition("/")[2].casefold()
