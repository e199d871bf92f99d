"""What the workshop makes, as records: names, lineage, and the way into the registry."""

import errno
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from ...core import __version__, paths
from ...core.errors import UsageError, VigtuiError
from ...core.i18n import _
from ...core.progress import Progress
from ..convert.publish import file as publish_file
from ..convert.publish import sync
from ..describe import describe, slug
from ..hashes import sha256
from ..record import File, Record
from ..store import Registry
from . import journal
from .ends import End
from .order import Order
from .source import Source
from .stage import Stage

_MADE_BY = {
    "convert": ("gguf",), "legacy": ("gguf",), "adapter": ("gguf",), "quantize": ("llama_cpp_python",),
    "gptq": ("gptqmodel", "torch", "transformers"),
}  # fmt: skip
"""Work → distributions whose version may change its result."""


def name(order: Order, source: Source, adapters: Sequence[Source], end: End) -> tuple[str, str]:
    """Give name and tag of a product: those of --name, else BASE:TYPE, BASE-ADAPTER:TYPE or BASE:GPTQ-4bit-128g."""
    given, colon, tag = (order.name or "").partition(":")
    usual = source.record.name
    if order.work == "merge":
        usual = "-".join([usual, *(_rest(usual, one.record.name) for one in adapters)])
    return given or slug(usual), tag if colon else end.tag


def _rest(base: str, adapter: str) -> str:
    """Give the adapter's name without the words that it begins with like its base."""
    words = re.split(r"[-._]", adapter)
    common = 0
    for ours, theirs in zip(words, re.split(r"[-._]", base), strict=False):
        if ours != theirs:
            break
        common += 1
    return "-".join(words[common:]) or adapter


def origin(stage: Stage) -> str:
    """Give what the record of a stage's product names as its source: the same inputs and parameters, the same text."""
    return f"workshop:{stage.key}"


def here(record: Record) -> Record | None:
    """Give the very same product when it is registered and its files are there.

    Raises UsageError when another model has its name.
    """
    known = next((one for one in Registry().all() if one.ref == record.ref), None)
    if known is None:
        return None
    if known.source != record.source:
        raise UsageError(
            _("There is already a model {name}.").format(name=record.ref), _("Give another name with --name.")
        )
    whole = all(file.path.is_file() and file.path.stat().st_size == file.size for file in known.files)
    return known if whole else None


def announced(order: Order, source: Source, adapters: Sequence[Source], end: End) -> Record:
    """Give the record of a product as far as it is known before the work."""
    own, tag = name(order, source, adapters, end)
    base = source.record
    parents = [lasting(base), *(lasting(one.record) for one in adapters)]
    fits = order.work != "convert" or source.kind != "adapter"
    return Record(
        name=own,
        tag=tag,
        kind=end.kind if end.kind != "meta" else "safetensors",
        source=origin(end.made),
        format=base.format if fits else None,
        context=base.context,
        licence=base.licence,
        parents=tuple(dict.fromkeys(parents)),
        generation=base.generation if fits else {},
        origin="made",
    )


def lasting(record: Record) -> str:
    """Give what names a parent tomorrow too: its whole name, or for what is not registered where it lies."""
    known = any(one.ref == record.ref for one in Registry().all())
    return record.ref if known or not record.files else str(record.path.resolve())


def made_with(order: Order, source: Source, end: End, result: Mapping[str, Any]) -> dict[str, Any]:
    """Give what a record says of the work: parameters, versions, where it began, and what the work itself counted."""
    versions = {"vigtui": __version__}
    for distribution in _MADE_BY.get(end.made.work, ()):
        try:
            versions[distribution] = metadata.version(distribution)
        except metadata.PackageNotFoundError:
            continue
    counted = {key: value for key, value in result.items() if key != "notices" and value}
    return {
        **order.values(),
        **({"type": end.tag} if end.kind == "gguf" else {}),
        **counted,
        "from": source.record.source if source.record.owned else str(source.path),
        "versions": versions,
    }


def target(order: Order, record: Record, end: End) -> Path:
    """Give where a product will lie: where --output says, else in a folder of ours, or here when it is no model."""
    if order.output:
        return order.output.expanduser().absolute()
    if end.kind == "meta":
        return Path.cwd() / f"{record.name}-pth"
    own = f"{record.name}@{record.tag}".rstrip("@") + f".{end.made.key[:8]}"
    home = paths.models() / "products" / own
    single = end.kind in ("gguf", "adapter")
    return home / f"{'-'.join(filter(None, (record.name, record.tag)))}.gguf" if single else home


def refuse_output(order: Order, sources: Sequence[Source]) -> None:
    """Raise UsageError for an --output that is an input, or that is there already."""
    if order.output is None:
        return
    wanted = order.output.expanduser()
    for one in sources:
        places = [one.path, *one.files]
        if any(wanted.resolve() == place.resolve() for place in places) or (
            one.path.is_dir() and wanted.resolve().is_relative_to(one.path.resolve())
        ):
            raise UsageError(
                _("{path} is the source: the work would destroy it.").format(path=wanted), _("Give another --output.")
            )


def require_writable(goal: Path) -> None:
    """Raise UsageError when nothing can be written at `goal`, which need not have its folder yet."""
    folder = next(one for one in goal.parents if os.path.exists(one))  # False too where one may not look
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        raise UsageError(
            _("Nothing can be written at {path}.").format(path=goal), _("Name a folder of yours with --output.")
        )


def place(stage: Stage, goal: Path) -> Path:
    """Move the output of a finished stage to `goal` and give that; after a kill it goes on. Raises UsageError."""
    lies = journal.place(stage)
    if lies == goal:
        return goal
    if goal.exists():
        raise UsageError(_("{path} is there already.").format(path=goal), _("Give another --output."))
    assert lies is not None
    journal.move(stage, goal)
    goal.parent.mkdir(parents=True, exist_ok=True)
    _rename(lies, goal)
    return goal


def _rename(source: Path, goal: Path) -> None:
    """Rename, through a copy where `goal` is on another disk."""
    try:
        os.rename(source, goal)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        with publish_file(goal) as part:
            _copy(source, part)
    sync(goal.parent)


def _copy(source: Path, target: Path) -> None:
    """Copy a file or a folder and bring it to the disk; the first error ends it, unlike in shutil.copytree."""
    for path in (source, *sorted(source.rglob("*"))):
        copied = target / path.relative_to(source)
        if path.is_dir():
            copied.mkdir()
        else:
            shutil.copy2(path, copied)
        sync(copied)


def described(announced: Record, path: Path, notices: Sequence[str]) -> Record:
    """Give the record with what the product's files say; its files are not hashed."""
    seen = describe(path, announced.ref if announced.tag else f"{announced.name}:")
    return replace(
        announced,
        kind=seen.kind,
        files=files(path),
        context=seen.context or announced.context,
        architecture=seen.architecture,
        parameters=seen.parameters,
        quantization=seen.quantization,
        generation={**seen.generation, **announced.generation},
        notices=tuple(dict.fromkeys((*notices, *seen.notices))),
        added=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def files(path: Path) -> tuple[File, ...]:
    """Give all files of a product, config.json first: removing the model removes them all."""
    first = ("config.json", "adapter_config.json")
    found = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    found.sort(key=lambda file: file.name not in first)
    return tuple(File(file.absolute(), file.stat().st_size) for file in found)


def publish(record: Record, progress: Progress) -> Record:
    """Register the product, its files hashed. Raises UsageError when its name was taken meanwhile."""
    hashed = tuple(replace(file, sha256=sha256(file.path, progress)) for file in record.files)
    return Registry().publish(replace(record, files=hashed))


class Garbage(VigtuiError):
    """A product that is no model to speak of; it lies where the sentence says. `made` are those beside it that are."""

    made: tuple[Record, ...] = ()


def together(failures: Sequence[Garbage], made: Sequence[Record]) -> Garbage:
    """Give one error for several products that failed, `made` being those beside them that did not."""
    *others, last = failures
    found = Garbage(" ".join([*map(str, others), last.message]), last.hint)
    found.made = tuple(made)
    return found


def garbage(record: Record, path: Path, reason: str) -> Garbage:
    """Give the error for a product that failed its proof."""
    return Garbage(
        _("{name} is not registered: {reason}").format(name=record.ref, reason=reason),
        _("It lies at {path}.").format(path=path),
    )
