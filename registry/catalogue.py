"""The models that vigtui knows, read from assets/catalogue.toml: what they are and which prompt they want."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from fnmatch import fnmatchcase
from functools import cache
from typing import Any

from .. import assets
from ..core import i18n
from ..core.errors import UsageError
from ..core.i18n import _


@dataclass(frozen=True, slots=True)
class Entry:
    """One model of the catalogue; the fields are explained in assets/catalogue.toml.

    `generation` holds fields of Generation, `notes` a remark by language; `context` and `trained` count tokens.
    """

    repository: str
    name: str
    kind: str
    type: str
    foundation: str
    licence: str
    status: str
    format: str
    context: int
    revision: str = "main"
    file: str = ""
    restriction: str = ""
    formats: tuple[str, ...] = ()
    adapter_format: str = ""
    trained: int | None = None
    generation: Mapping[str, Any] = field(default_factory=dict)
    base: str = ""
    of: str = ""
    aliases: tuple[str, ...] = ()
    notes: Mapping[str, str] = field(default_factory=dict)

    @property
    def short(self) -> str:
        """The repository's last part in lower case, with @REVISION unless that is main."""
        return _last(self.repository) + ("" if self.revision == "main" else f"@{self.revision}")

    def caution(self) -> str:
        """Give what a person must know before fetching it, or nothing."""
        said = {
            "research": _("{name} is for research only: its licence ({licence}) excludes commercial use."),
            "accept": _("{name} asks you to accept its licence ({licence}) on the hub first."),
            "removed": _("{name} is no longer on the hub."),
        }.get(self.restriction, "")
        return said.format(name=self.name, licence=self.licence)

    def note(self) -> str:
        """Give the remark in the language in force, or nothing."""
        return self.notes.get(i18n.language(), self.notes.get("en", ""))


@cache
def entries() -> tuple[Entry, ...]:
    """Give the whole catalogue in its own order."""
    data = tomllib.loads(assets.path("catalogue.toml").read_text(encoding="utf-8"))
    return tuple(_entry(values, data["generation"]) for values in data["model"])


def lookup(repository: str, revision: str = "main", file: str = "") -> Entry | None:
    """Give the entry for a file at a revision of a repository, or None; an entry of that very revision comes first."""
    same = [one for one in entries() if repository.casefold() in _repositories(one)]
    fits = [one for one in same if not one.file or not file or fnmatchcase(file.casefold(), one.file)]
    fits.sort(key=lambda one: (one.revision != revision, one.revision != "main"))
    return fits[0] if fits else None


def named(name: str) -> Entry | None:
    """Give the entry with this short name or alias, or None. Raises UsageError when several have it."""
    word, _at, revision = name.casefold().partition("@")
    found = [one for one in entries() if word in _names(one) and one.revision.casefold() == (revision or "main")]
    found = [one for one in found if one.restriction != "removed"] or found
    repositories = sorted({one.repository for one in found})
    if len(repositories) > 1:
        raise UsageError(
            _("{name} can mean several models.").format(name=name),
            _("Choose one: {names}.").format(names=", ".join(repositories)),
        )
    return found[0] if found else None


def search(words: str) -> list[Entry]:
    """Give the entries that hold every word somewhere in what is known of them; the recommended ones first."""
    wanted = words.casefold().split()
    found = [one for one in entries() if all(word in _text(one) for word in wanted)]
    return sorted(found, key=lambda one: _STATUS.index(one.status))


def conversions(entry: Entry, kind: str) -> list[Entry]:
    """Give the conversions of the entry's weights into `kind`, those of its very revision only."""
    return [one for one in entries() if one.kind == kind and (source := original(one)) and source.name == entry.name]


def builds(entry: Entry, kind: str) -> list[Entry]:
    """Give what to use instead of `entry` in the form `kind`: of its own weights, else of its repository's newest."""
    source = original(entry) or entry
    newest = lookup(source.repository) or source
    return conversions(source, kind) or conversions(newest, kind)


def original(entry: Entry) -> Entry | None:
    """Give the entry whose weights a conversion holds, or None."""
    repository, _at, revision = entry.of.partition("@")
    return lookup(repository, revision or "main") if repository else None


def near(name: str, most: int = 3) -> list[str]:
    """Give the names in the catalogue that look most like `name`: repositories for ORG/NAME, else short names."""
    known = [one.repository if "/" in name else one.short for one in entries()]
    by_lower = {one.casefold(): one for one in known}
    return [by_lower[found] for found in get_close_matches(name.casefold(), by_lower, n=most, cutoff=0.5)]


_STATUS = ("recommended", "legacy", "conversion", "pretrained")


def _entry(values: Mapping[str, Any], generation: Mapping[str, Mapping[str, Any]]) -> Entry:
    values = dict(values)
    lists = {name: tuple(values.pop(name, ())) for name in ("formats", "aliases")}
    wanted = generation.get(values.pop("generation", ""), {})
    return Entry(notes=values.pop("note", {}), generation=wanted, **lists, **values)


def _last(repository: str) -> str:
    return repository.rpartition("/")[2].casefold()


def _repositories(one: Entry) -> set[str]:
    owner = one.repository.partition("/")[0]
    older = {alias if "/" in alias else f"{owner}/{alias}" for alias in one.aliases}
    return {name.casefold() for name in {one.repository, *older}}


def _names(one: Entry) -> set[str]:
    return {_last(one.repository), one.name.casefold(), *(_last(alias) for alias in one.aliases)}


def _text(one: Entry) -> str:
    facts = (one.repository, one.revision, one.name, one.kind, one.type, one.foundation, one.licence, one.status)
    return " ".join((*facts, one.format, *one.aliases)).casefold()
