"""What a pull will fetch, worked out before the first byte."""

import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import unquote, urlsplit

from ..core import paths
from ..core.errors import CapacityError, FormatError, NotFoundError, UsageError
from ..core.i18n import _
from . import branch, catalogue, hub, memory
from .choose import choose
from .describe import describe
from .forms import Option, quantization
from .record import KINDS, Record
from .reference import Reference, parse
from .store import Registry


@dataclass(frozen=True, slots=True)
class Order:
    """A pull, ready to start: the record that it will publish as far as it is known, and the files to fetch.

    `options` are the other builds in the repository and `branches` the tags of other GPTQ builds, both chosen with
    ORG/REPO:TAG; `base` is the repository that an adapter needs and that is not here yet. `notices` are for people.
    """

    reference: Reference
    record: Record
    files: tuple[hub.RemoteFile, ...] = ()
    repository: str = ""
    commit: str = ""
    options: tuple[Option, ...] = ()
    branches: Mapping[str, str] = field(default_factory=dict)
    base: str = ""
    location: hub.Location | None = None
    notices: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)

    @property
    def missing(self) -> int:
        """Bytes that are still to be fetched, less the parts of earlier pulls where they can be known."""
        return sum(file.size - min(file.size, self._present(file)) for file in self.files)

    def place(self, etag: str, file: hub.RemoteFile) -> Path:
        """Give where the bytes of `file` will lie."""
        if self.location:
            key = re.sub(r"\W+", "-", etag)[:80]
            return paths.models() / "downloads" / self.record.name / (f"{key}-{file.name}" if key else file.name)
        return hub.folder(self.repository) / "blobs" / etag

    def _present(self, file: hub.RemoteFile) -> int:
        if self.repository and (hub.folder(self.repository) / "snapshots" / self.commit / file.name).exists():
            return file.size
        etag = self.location.etag if self.location else file.sha256
        if not etag:
            return 0
        whole = self.place(etag, file)
        part = whole.with_name(whole.name + ".vigtui")
        return file.size if whole.exists() else part.stat().st_size if part.exists() else 0


def prepare(text: str, name: str | None = None) -> Order:
    """Give what `vigtui pull TEXT` will fetch; `name` is that of --name. Asks the hub, fetches nothing.

    Raises UsageError, NotFoundError, NetworkError, FormatError, and CapacityError when the disk has not the room.
    """
    wanted = parse(text)
    if wanted.path:
        return Order(wanted, describe(wanted.path, name))
    order = _address(wanted) if wanted.url else _repository(wanted)
    order = replace(order, record=_named(order.record, name))
    _refuse_a_clash(order.record)
    _refuse_a_full_disk(order)
    return order


def _repository(wanted: Reference) -> Order:
    entry = catalogue.lookup(wanted.repository, wanted.revision or "main", wanted.file)
    if entry and entry.restriction == "removed":
        raise NotFoundError(entry.caution(), entry.note())
    wanted, branches = branch.chosen(wanted, entry)
    held = hub.repository(wanted.repository, wanted.revision)
    choice = choose(held, wanted, memory.available())
    _refuse_a_kind(choice.kind, held, entry)
    if held.gated:
        hub.locate(held.name, held.commit, choice.option.files[0].name)
    entry = catalogue.lookup(held.name, wanted.revision or "main", choice.option.files[0].name) or entry
    base = _base(held, choice.kind, choice.option, entry)
    return Order(
        wanted,
        _record(held, wanted, choice.kind, choice.option, entry, base),
        choice.option.files,
        held.name,
        held.commit,
        choice.options,
        branches,
        "" if not base or _known(base) else base,
        notices=_notices(held, wanted, entry, choice.kind),
    )


def _address(wanted: Reference) -> Order:
    location = hub.at(wanted.url)
    file = unquote(urlsplit(wanted.url).path).rpartition("/")[2]
    if not file.endswith(".gguf"):
        raise UsageError(
            _("{url} is not a GGUF file.").format(url=wanted.url),
            _("Only .gguf files can be pulled from anywhere; models of several files come from the hub."),
        )
    tag = quantization(file)
    stem = re.sub(rf"(?i)[._-]{tag}$", "", file[:-5]) if tag else file[:-5]
    record = Record(name=_slug(stem), tag=tag, kind="gguf", source=wanted.url, quantization=tag)
    notice = _("The server names no hash: only the size of {file} can be checked.").format(file=file)
    return Order(wanted, record, (hub.RemoteFile(file, location.size or 0),), location=location, notices=(notice,))


def _record(
    held: hub.Repository,
    wanted: Reference,
    kind: str,
    option: Option,
    entry: catalogue.Entry | None,
    base: str,
) -> Record:
    adapter_days = kind == "adapter" and entry is not None and entry.adapter_format
    revision = wanted.revision or "main"
    return Record(
        name=_slug(held.name.rpartition("/")[2]),
        tag=_tag(held, kind, option, revision),
        kind=kind,
        source=f"{held.name}@{held.commit}",
        format=(entry.adapter_format if adapter_days else entry.format) if entry else None,
        context=entry.context if entry else None,
        licence=held.licence or (entry.licence if entry else ""),
        parents=(_slug(base.rpartition("/")[2]),) if base else (),
        made_with={"revision": revision},
        generation=entry.generation if entry else {},
        quantization=option.tag if kind in ("gguf", "ggml") else "",
    )


def _tag(held: hub.Repository, kind: str, option: Option, revision: str) -> str:
    """Give the quantization for GGUF and GPTQ, else the revision unless that is main."""
    tag = option.tag
    if kind == "gptq":
        tag = branch.tag(held, option, revision)
    elif not tag and revision != "main":
        tag = revision
    return re.sub(r"[^A-Za-z0-9._-]+", "-", tag).strip("._-")[:64]


def _base(held: hub.Repository, kind: str, option: Option, entry: catalogue.Entry | None) -> str:
    """Give the repository of the model that an adapter belongs to: the catalogue's, else the one it names itself."""
    if kind != "adapter" or (entry and entry.base):
        return entry.base if kind == "adapter" and entry else ""
    named = ""
    if any(file.name == "adapter_config.json" for file in option.files):
        named = str(branch.settings(held, "adapter_config.json").get("base_model_name_or_path") or "")
    return named if re.fullmatch(r"[\w.-]+/[\w.-]+", named) else held.base


def _known(base: str) -> bool:
    return any(one.source.partition("@")[0].casefold() == base.casefold() for one in Registry().all())


def _notices(held: hub.Repository, wanted: Reference, entry: catalogue.Entry | None, kind: str) -> tuple[str, ...]:
    moved = _("{old} is called {new} by now.").format(old=wanted.repository, new=held.name)
    said = [moved] if held.name.casefold() != wanted.repository.casefold() else []
    said += [entry.caution(), entry.note()] if entry else []
    if entry and kind == "safetensors" and (builds := catalogue.conversions(entry, "gguf")):
        said.append(_("There is a GGUF build for llama.cpp too: {name}.").format(name=builds[0].repository))
    if re.search(r"(?i)\bdelta\b", held.name):
        said.append(_("{name} holds differences to another model, which cannot be run alone.").format(name=held.name))
    return tuple(filter(None, said))


def _refuse_a_kind(kind: str, held: hub.Repository, entry: catalogue.Entry | None) -> None:
    if kind in KINDS:
        return
    builds = catalogue.builds(entry, "gguf") if entry else []
    raise FormatError(
        _("{name} holds GGML files of 2023, which no program of today reads.").format(name=held.name),
        _("Pull {name} instead.").format(name=builds[0].repository) if builds else _("Look for a GGUF build of it."),
    )


def _named(record: Record, name: str | None) -> Record:
    if not name:
        return record
    own, colon, tag = name.partition(":")
    return replace(record, name=own, tag=tag if colon else record.tag)


def _refuse_a_clash(new: Record) -> None:
    """Refuse a name that another model has; the same repository and revision is the same model, made anew."""
    for old in Registry().all():
        if old.ref == new.ref and not same(old, new):
            raise UsageError(
                _("There is already a model {name}.").format(name=new.ref), _("Give another name with --name.")
            )


def same(old: Record, new: Record) -> bool:
    """Tell whether two records are of the same repository and revision, at whatever commit, or of the same address."""
    revisions = [one.made_with.get("revision") for one in (old, new)]
    sources = [one.source.partition("@")[0] if "://" not in one.source else one.source for one in (old, new)]
    return revisions[0] == revisions[1] and sources[0] == sources[1]


def _refuse_a_full_disk(order: Order) -> None:
    folder = paths.models() if order.location else hub.cache()
    while not folder.exists():
        folder = folder.parent
    free, missing = shutil.disk_usage(folder).free, order.missing
    if missing > free:
        raise CapacityError(
            _("{name} needs {size} MB more, and only {free} MB are free at {folder}.").format(
                name=order.record.ref, size=missing >> 20, free=free >> 20, folder=folder
            ),
            _("Make room, choose a smaller quantization, or set HF_HOME to another disk."),
        )


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9._-]+", "-", text.lower()).strip("._-")[:128] or "model"
