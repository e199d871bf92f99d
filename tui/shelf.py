"""What the Models screen lists: models, pulls, the catalogue, and what the hub found. No widget in it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from ..core.i18n import _
from ..registry import catalogue, default, hub, memory
from ..registry.record import Record
from ..registry.remove import freeable
from ..registry.store import Registry
from ..registry.unfinished import Unfinished, partial
from . import number
from .cli.bar import Bar, percent
from .cli.listing import moment
from .cli.output import size
from .cli.search import ref as reference
from .cli.search import status
from .pulls import Pull, Pulls

Place = Literal["model", "pull", "catalogue", "hub", "reference", "search"]


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the list. `ref` is the model's name, or what a pull takes; `about` are the lines below the list."""

    place: Place
    ref: str
    name: str
    kind: str = ""
    size: str = ""
    frees: str = ""
    state: str = ""
    type: str = ""
    context: str = ""
    format: str = ""
    about: tuple[str, ...] = ()
    held: Record | Unfinished | None = None
    words: str = ""

    @property
    def key(self) -> str:
        """What tells it from the others."""
        return f"{self.place} {self.ref}"


@dataclass(frozen=True, slots=True)
class Shelf:
    """All rows but the hub's, and the line on the disk. `damaged` tells of records that cannot be read."""

    rows: tuple[Row, ...]
    disk: str
    damaged: tuple[str, ...] = ()


def gather(pulls: Pulls, now: str = "") -> Shelf:
    """Give what is here, on its way and in the catalogue; `now` is the model that answers."""
    registry = Registry()
    known, used = registry.all(), registry.used()
    frees, whole = freeable(known)
    kept = [one for one in partial() if one.ref not in {record.ref for record in known}]
    usual = default.among(known)
    rows = [_model(one, frees.get(one.ref, 0), used.get(one.ref), one.ref == usual, one.ref == now) for one in known]
    rows += [_waiting(one) for one in pulls.all if one.ref not in {k.ref for k in kept} and one.state != "done"]
    rows += [_pull(one, pulls.of(one.ref)) for one in kept]
    here = {record.source.partition("@")[0].casefold() for record in known}
    rows += [row for row in _catalogue() if row.words.split(" ")[0] not in here]
    left = sum(one.done for one in kept)
    return Shelf(tuple(rows), _disk(known, whole + left), tuple(registry.damaged))


def _disk(known: Sequence[Record], frees: int) -> str:
    taken = {file.path.resolve(): file.size for one in known for file in one.files}
    text = _("{count} models take {size}; {frees} can be freed; {free} free on the disk")
    free = memory.disk(hub.cache())
    return text.format(
        count=len(known), size=size(sum(taken.values())), frees=size(frees), free="–" if free is None else size(free)
    )


def _model(one: Record, frees: int, used: float | None, usual: bool, now: bool) -> Row:
    here = all(file.path.exists() for file in one.files)
    state = _("answers") if now else _("default") if usual else _("here") if here else _("missing")
    context = _("{count} tokens of context").format(count=number.count(one.context)) if one.context else ""
    gone = _("removing it frees {size}").format(size=size(frees)) if frees else _("removing it frees nothing")
    facts = [one.architecture, one.quantization, context, one.format or "", _licence(one.licence)]
    facts += [_("last used {time}").format(time=moment(used)) if used else "", gone]
    lies = str(one.path) if one.files else ""
    return Row(
        "model", one.ref, one.ref, one.kind, size(one.size), size(frees) if frees else "–", state, one.quantization,
        "" if one.context is None else number.count(one.context), one.format or "",
        (" · ".join(filter(None, facts)), lies, *one.notices[:1]), one, f"{one.ref} {one.kind} {one.source}".casefold(),
    )  # fmt: skip


def _licence(name: str) -> str:
    return _("Licence: {licence}.").format(licence=name).rstrip(".") if name else ""


def _pull(one: Unfinished, live: Pull | None) -> Row:
    about = progress(live) if live else (_("A pull that has not ended; it goes on from there."),)
    state = standing(live) if live else percent(one.done, one.size)
    return Row(
        "pull", one.ref, one.ref, _("pull"), size(one.size), size(one.done), state, about=about, held=one,
        words=f"{one.ref} {one.reference}".casefold(),
    )  # fmt: skip


def _waiting(one: Pull) -> Row:
    """A pull of which there is no note on the disk: it has not begun, or it failed before it could."""
    return Row(
        "pull", one.ref, one.ref, _("pull"), size(one.order.size), "–", standing(one), about=progress(one),
        words=f"{one.ref} {one.order.reference.text}".casefold(),
    )  # fmt: skip


def standing(one: Pull) -> str:
    """Give how far a pull is, in a word."""
    if one.state == "running" and one.step:
        return percent(one.step.total_done, one.step.total)
    return {
        "waiting": _("waits"), "running": _("begins"), "paused": _("paused"), "failed": _("failed"), "done": _("here"),
        "gone": _("given up"),
    }[one.state]  # fmt: skip


def progress(one: Pull) -> tuple[str, ...]:
    """Give how far a pull is, in sentences."""
    said = [Bar(one.ref, [file.name for file in one.order.files]).text(one.step)] if one.step else []
    if one.error is not None:
        said.append(str(one.error))
    elif one.state == "paused":
        said.append(_("Paused; what was fetched is kept."))
    elif one.state == "waiting":
        said.append(_("It waits for the pull before it."))
    return tuple(said)


def _catalogue() -> Iterator[Row]:
    known: dict[str, catalogue.Entry] = {}
    for entry in catalogue.search(""):
        known.setdefault(reference(entry), entry)
    for one, entry in known.items():
        place = "" if one.startswith(entry.repository) else entry.repository
        facts = [entry.name, place, entry.foundation, _licence(entry.licence)]
        yield Row(
            "catalogue", one, one, entry.kind, state=status(entry), type=entry.type,
            context=number.count(entry.context), format=entry.format,
            about=(" · ".join(filter(None, facts)), *filter(None, (entry.caution(), entry.note()))),
            words=" ".join((entry.repository, entry.revision, entry.name, entry.kind, entry.type, entry.foundation,
                            entry.licence, entry.status, one, *entry.aliases)).casefold(),
        )  # fmt: skip


def searched(words: str) -> list[Row]:
    """Give what the hub finds. Raises NetworkError."""
    return [
        Row(
            "hub", one.repository, one.repository, _("on the hub"), state=_("gated") if one.gated else "",
            about=(
                _("{count} downloads").format(count=number.count(one.downloads)), _licence(one.licence),
            ),
            words=one.repository.casefold(),
        )
        for one in hub.search(words)
    ]  # fmt: skip


def offered(text: str, rows: Sequence[Row]) -> list[Row]:
    """Give the rows that have every word of `text`; then what else `text` can mean: a reference, words for the hub."""
    words = text.casefold().split()
    found = [row for row in rows if all(word in row.words for word in words)]
    if len(words) == 1 and "/" in text and text.strip() not in {row.ref for row in found}:
        about = (_("A model outside the catalogue; Enter asks what it takes."),)
        found.append(Row("reference", text.strip(), text.strip(), _("elsewhere"), about=about))
    if words and not hub.offline():
        asked = _("Enter asks {place} for “{words}”.").format(place=hub.endpoint(), words=" ".join(text.split()))
        found.append(Row("search", text.strip(), _("Search the hub …"), about=(asked,)))
    return found
