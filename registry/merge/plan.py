"""The comparison of a base with adapters before anything is written: what goes where, what it takes, what is odd."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path

from ...core.errors import FormatError, UsageError
from ...core.i18n import _
from .. import check, document
from ..convert import weights
from ..sniff import sniff
from . import adapter as reader
from . import base as bases
from . import files, layout
from .adapter import Adapter
from .place import Places

_ROOM = 96 << 20  # bytes of pieces in flight, measured


@dataclass(frozen=True, slots=True)
class Survey:
    """What a merge will do: `size` bytes to write, `memory` bytes to hold, `changed` of `tensors` tensors."""

    size: int
    memory: int
    changed: int
    tensors: int
    notices: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """The shards to write, name → file of what is copied, and the new number of tokens where it changes."""

    shards: layout.Shards
    beside: dict[str, Path]
    vocabulary: int | None
    survey: Survey


def survey(base: Path, adapters: Sequence[tuple[Path, float]], alpha: float | None = None) -> Survey:
    """Compare `base`, a Hugging Face folder, with the adapters (folder, scale) and say what merging them takes.

    `alpha` is for adapters without adapter_config.json. Nothing is written. Raises UsageError, NotFoundError, and
    FormatError for everything that does not fit: kinds, shapes, vocabularies, names without a place.
    """
    return plan(base, adapters, alpha).survey


def plan(base: Path, adapters: Sequence[tuple[Path, float]], alpha: float | None = None) -> Plan:
    """Give the plan of the merge. Raises what `survey` raises."""
    read = _read(adapters, alpha)
    bases.require(base)
    places = Places(base, document.optional(base / "config.json"), weights.index(base))
    for adapter, scale in read:
        places.add(adapter, scale)
    places.finish()
    if not places.changes:
        raise reader.empty(read[0][0].folder)
    beside = files.choose(base, places.tokenizer)
    shards = layout.shape(base, places)
    entries = [entry for listed in shards.values() for entry in listed]
    found = Survey(
        sum(layout.size(*entry) for entry in entries) + sum(path.stat().st_size for path in beside.values()),
        _ROOM + max((change.memory for _tensor, change in entries), default=0),
        len(places.changes),
        len(entries),
        tuple(dict.fromkeys([*places.notices, *_notices(base, [adapter for adapter, _scale in read], places)])),
    )
    return Plan(shards, beside, places.vocabulary, found)


def _read(adapters: Sequence[tuple[Path, float]], alpha: float | None) -> list[tuple[Adapter, float]]:
    if not adapters:
        raise UsageError(_("A merge needs an adapter."), _("Name it with --lora."))
    if alpha is not None and not (isfinite(alpha) and alpha > 0):
        raise UsageError(_("{alpha} is no alpha of an adapter.").format(alpha=alpha), _("Give a number above zero."))
    found = [(_adapter(path, scale, alpha), scale) for path, scale in adapters]
    if alpha is not None and all("lora_alpha" in adapter.config for adapter, _scale in found):
        raise UsageError(
            _("The adapter says its alpha itself: {alpha}.").format(alpha=found[0][0].config["lora_alpha"]),
            _("Leave out --alpha; --scale makes it stronger or weaker."),
        )
    return found


def _adapter(path: Path, scale: float, alpha: float | None) -> Adapter:
    if not isfinite(scale) or scale == 0:
        raise UsageError(
            _("{scale} is no scale to merge an adapter with.").format(scale=scale), _("Write --scale 0.5, say.")
        )
    adapter = reader.read(_folder(path), alpha)
    if not reader.effective(adapter):
        raise reader.empty(adapter.folder)
    return adapter


def _folder(path: Path) -> Path:
    """Give the folder of an adapter. Raises UsageError, NotFoundError or FormatError for something else."""
    if path.is_file() and path.name in reader.WEIGHTS:
        return path.parent
    if path.is_dir() and (path / reader.SETTINGS).is_file():
        return path
    found = sniff(path)
    if path.is_dir() and any((path / name).is_file() for name in reader.WEIGHTS) and found.kind != "safetensors":
        return path
    if found.kind in ("adapter", "ggml"):
        raise FormatError(
            _("{path} is an adapter in llama.cpp's format, which is rounded and reordered already.").format(path=path),
            _("Apply it at run time with --lora, or merge the PEFT adapter that it was made from."),
        )
    if found.kind in ("gguf", "safetensors", "gptq"):
        raise UsageError(
            _("{name} is a whole model, not an adapter.").format(name=path),
            _("Name the base first, then the adapter: vigtui merge BASE --lora ADAPTER."),
        )
    raise check.refusal(found)


def _notices(base: Path, adapters: Sequence[Adapter], places: Places) -> list[str]:
    found = []
    for adapter in adapters:
        if adapter.base and not bases.known_as(adapter.base, base, places.config):
            found.append(
                _("{adapter} was trained on {wanted}; the shapes fit {base} too.").format(
                    adapter=bases.title(adapter.folder), wanted=adapter.base, base=bases.title(base)
                )
            )
        taken = adapter.folder == places.tokenizer
        found += files.notices(adapter.folder, places.tokens, taken, places.vocabulary is not None)
    return found
