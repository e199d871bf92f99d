"""What a pull will fetch, worked out before the first byte."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import unquote, urlsplit

from ..core import paths
from ..core.errors import FormatError, NotFoundError, UsageError
from ..core.i18n import _
from . import branch, catalogue, forecast, hub
from . import plan as planning
from .choose import choose
from .describe import describe
from .forms import Option, quantization
from .plan import Plan, Shape
from .record import KINDS, Record, same
from .reference import Reference, parse
from .store import Registry


@dataclass(frozen=True, slots=True)
class Order:
    """A pull, ready to start: the record that it will publish as far as it is known, and the files to fetch.

    `options` are the builds in the repository and `branches` the tags of other GPTQ builds, both chosen with
    ORG/REPO:TAG; `base` is the repository that an adapter needs and that is not here yet. `notices` are for people,
    `asks` tells whether its licence excludes some uses. `shape` is None until it is read.
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
    asks: bool = False
    shape: Shape | None = None

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)

    @property
    def missing(self) -> int:
        """Bytes that are still to be fetched, less the parts of earlier pulls where they can be known."""
        if self.repository:
            return forecast.missing(self.repository, self.commit, self.files)
        return sum(file.size - min(file.size, self._present(file)) for file in self.files)

    def place(self, etag: str, file: hub.RemoteFile) -> Path:
        """Give where the bytes of `file` will lie."""
        if self.location:
            key = re.sub(r"\W+", "-", etag)[:80]
            return paths.models() / "downloads" / self.record.name / (f"{key}-{file.name}" if key else file.name)
        return hub.folder(self.repository) / "blobs" / etag

    def plans(self, context: int | None = None) -> list[Plan]:
        """Give what each build of the repository needs, this one among them, at `context` tokens."""
        if self.location:
            choices = [(self.record.tag or self.files[0].name, self.size, self.missing)]
            return planning.table(choices, self.shape, forecast.machine(paths.models()), context)
        return forecast.plans(self.repository, self.commit, self.options, self.shape, context)

    def plan(self, plans: Sequence[Plan] = ()) -> Plan | None:
        """Give what the build to fetch needs, of `plans` or new ones; None for what lies on this disk."""
        files = [option.files for option in self.options]
        at = files.index(self.files) if self.files in files else 0
        return (plans or self.plans())[at] if self.files else None

    def _present(self, file: hub.RemoteFile) -> int:
        etag = self.location.etag if self.location else file.sha256
        return forecast.present(self.place(etag, file), file.size) if etag else 0


def prepare(text: str, name: str | None = None, force: bool = False, forms: Sequence[str] = ()) -> Order:
    """Give what `vigtui pull TEXT` will fetch; `name` is that of --name. Asks the hub, fetches nothing.

    Who wants weights to work on names the kinds of record to look for first in `forms`.

    Raises UsageError, NotFoundError, NetworkError, FormatError, and unless `force` CapacityError when it does not fit.
    """
    wanted = parse(text, full=bool(forms))
    if wanted.path:
        return Order(wanted, describe(wanted.path, name))
    order = _address(wanted) if wanted.url else _repository(wanted, forms)
    order = replace(order, record=_named(order.record, name))
    _refuse_a_clash(order.record)
    if not force:
        require(order)
    return order


def held(text: str) -> Record | None:
    """Give the model that pulling `text` once brought here, as far as that is known without asking the hub."""
    wanted = parse(text)
    for one in Registry().all():
        source = one.source.partition("@")[0].casefold()
        revisions = (one.made_with.get("revision"), one.source.rpartition("@")[2])
        if (
            source == wanted.repository.casefold() != ""
            and wanted.tag.casefold() in ("", one.tag.casefold())
            and (wanted.revision or "main") in revisions
            and (not wanted.file or wanted.file in [file.path.name for file in one.files])
        ):
            return one
    return None


def weighed(order: Order) -> Order:
    """Give the order with the model's shape, for which the head of one of its files is read."""
    if order.shape or not order.repository:
        return order
    read = forecast.shape(order.repository, order.commit, order.record.kind, order.files)
    return replace(order, shape=read)


def require(order: Order) -> None:
    """Raise CapacityError when the disk has not the room, or the memory not even for a short context."""
    plan = order.plan()
    if plan and not (plan.fits or (plan.fits_disk and plan.longest)):
        planning.require(plan, order.record.ref)


def _repository(wanted: Reference, forms: Sequence[str]) -> Order:
    entry = catalogue.lookup(wanted.repository, wanted.revision or "main", wanted.file)
    if entry and entry.restriction == "removed":
        raise NotFoundError(entry.caution(), entry.note())
    wanted, branches = branch.chosen(wanted, entry)
    held = hub.repository(wanted.repository, wanted.revision)
    if held.gated and held.files:
        hub.locate(held.name, held.commit, max(held.files, key=lambda file: file.size).name)
    shape: Shape | None = None

    def weigh(kind: str, options: tuple[Option, ...]) -> list[Plan]:
        nonlocal shape
        shape = forecast.shape(held.name, held.commit, kind, options[0].files)
        return forecast.plans(held.name, held.commit, options, shape)

    choice = choose(held, wanted, weigh, forms)
    _refuse_a_kind(choice.kind, held, entry)
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
        asks=bool(entry and entry.restriction == "research"),
        shape=shape,
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
        _("{name} holds GGML files of 2023, which llama.cpp stopped reading in August 2023.").format(name=held.name),
        _("Its GGUF build is {name}: vigtui pull {name}").format(name=builds[0].repository)
        if builds
        else _("Look for a GGUF build of it: `vigtui search WORDS`."),
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


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9._-]+", "-", text.lower()).strip("._-")[:128] or "model"
