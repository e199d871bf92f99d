"""Everything that is known of one model, from its record and from its files."""

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

from ..backends.base import LoadOptions
from ..core.errors import FormatError, NotFoundError
from . import document, header
from .check import refusal
from .convert import safetensors
from .hashes import sha256
from .kind import MODELS, Sniffed
from .open import needs
from .plan import Plan
from .record import File, Record
from .sniff import sniff
from .store import Registry
from .workshop.report import Report

_HASHED = 64 << 20
"""Bytes of a file that is hashed to be shown; larger ones show the hash that is known."""


@dataclass(frozen=True, slots=True)
class Detail:
    """`types` counts tensors by type; `template` is the model's own chat template. `plan` says what a load needs.

    `children` are the models made of it, `problem` the sentence about files that are damaged or gone, `report` what a
    product was measured to be worth.
    """

    record: Record
    tensors: int = 0
    types: Mapping[str, int] = field(default_factory=dict)
    template: str | None = None
    plan: Plan | None = None
    children: tuple[str, ...] = ()
    used: float | None = None
    problem: str = ""
    report: Report | None = None


def detail(record: Record, context: int | None = None) -> Detail:
    """Give what is known of `record`, with the memory that it takes at `context` tokens."""
    registry = Registry()
    known = Detail(
        record, children=_children(record, registry.all()), used=registry.used().get(record.ref), report=_report(record)
    )
    if not record.files:
        return known
    found = sniff(record.path)
    if found.kind not in MODELS:
        return replace(known, problem=str(refusal(found)))
    known = replace(known, record=replace(record, files=tuple(map(_hashed, record.files))))
    types = _types(found)
    return replace(
        known,
        tensors=sum(types.values()),
        types=dict(types.most_common()),
        template=_template(found),
        plan=None if record.kind == "adapter" else needs(record.ref, found, LoadOptions(context=context)),
    )


def _children(record: Record, known: Sequence[Record]) -> tuple[str, ...]:
    """Give the models made of `record`; an adapter may name its base without a tag."""
    names = {record.ref} if record.name in {one.ref for one in known} else {record.ref, record.name}
    return tuple(one.ref for one in known if names & set(one.parents))


def _report(record: Record) -> Report | None:
    with suppress(FormatError):
        return Report.from_values(record.made_with["report"]) if "report" in record.made_with else None


def _hashed(file: File) -> File:
    if file.sha256 or file.size > _HASHED:
        return file
    try:
        return replace(file, sha256=sha256(file.path))
    except (NotFoundError, OSError):
        return file


def _types(found: Sniffed) -> Counter[str]:
    if found.header:
        heads = [found.header, *map(header.read, found.files[1:])]
        kinds = (tensor.kind for head in heads for tensor in head.tensors)
        return Counter(header.TYPES.get(kind, (str(kind),))[0] for kind in kinds)
    files = [file for file in found.files if file.suffix == ".safetensors"]
    return Counter(tensor.dtype for file in files for tensor in safetensors.whole(file).values())


def _template(found: Sniffed) -> str | None:
    if found.header:
        return found.header.text("tokenizer.chat_template") or None
    jinja = found.path / "chat_template.jinja"
    if jinja.is_file():
        return jinja.read_text(errors="replace")[: document.LIMIT]
    value = document.optional(found.path / "tokenizer_config.json").get("chat_template")
    return value if isinstance(value, str) else None
