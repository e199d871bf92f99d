"""What a person may write after `vigtui pull`, read once into one value."""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from urllib.parse import unquote, urlsplit
from urllib.request import url2pathname

from ..core.errors import NotFoundError, UsageError
from ..core.i18n import _
from . import catalogue

_REPOSITORY = r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}"
_HUB = re.compile(rf"(?P<repository>{_REPOSITORY})(?:@(?P<revision>[^:]+))?(?::(?P<rest>.+))?")
_HOSTS = ("huggingface.co", "hf.co", "www.huggingface.co")
_PAGE = re.compile(
    rf"/(?P<repository>{_REPOSITORY})(?:/(?:resolve|blob|tree|raw)/(?P<revision>[^/]+)(?:/(?P<file>.+))?)?/?"
)


@dataclass(frozen=True, slots=True)
class Reference:
    """What to pull: a repository on the hub, a bare https file (`url`), or something on this disk (`path`).

    `revision` None is the repository's main branch, `file` one file of it, `tag` a quantization ("Q4_K_M").
    """

    text: str
    repository: str = ""
    revision: str | None = None
    file: str = ""
    tag: str = ""
    url: str = ""
    path: Path | None = None


def parse(text: str, full: bool = False) -> Reference:
    """Give what `text` refers to; a name of the catalogue means a build that runs everywhere, `full` the weights whole.

    Raises UsageError, with the way to write it, NotFoundError for an unknown name.
    """
    scheme = text.partition("://")[0].lower() if "://" in text else ""
    read: dict[str, Callable[[str], Reference | None]] = {
        "": partial(_name, full=full), "hf": _hub, "https": _web, "http": _plain, "file": _file
    }  # fmt: skip
    found = read.get(scheme, lambda _text: None)(text.strip())
    if found is None:
        raise UsageError(
            _("{text} is no reference to a model.").format(text=text),
            _("Write NAME, ORG/REPO, ORG/REPO:Q4_K_M, hf://ORG/REPO@REVISION:FILE, https://… or file://…."),
        )
    return found


def _name(text: str, full: bool = False) -> Reference | None:
    """Read ORG/REPO[@REVISION][:TAG], hf.co/ORG/REPO, or a name of the catalogue with [@REVISION][:TAG]."""
    host, _slash, _rest = text.partition("/")
    if host.lower() in _HOSTS:
        return replace(_web(f"https://{text}") or Reference(text), text=text)
    if "/" in text:
        return _hub(text)
    name, _colon, tag = text.partition(":")
    if not re.fullmatch(r"[\w.@-]+", name):
        return None
    entry = catalogue.named(name)
    if entry is None:
        raise NotFoundError(
            _("{name} is not in the catalogue.").format(name=name),
            _suggestion(catalogue.near(name)),
        )
    return _from(entry, text, tag, full)


def _from(entry: catalogue.Entry, text: str, tag: str, full: bool) -> Reference:
    """Give the repository of the entry's GGUF build, which every machine runs, or its own where there is none."""
    if entry.kind == "full" and not full and (builds := catalogue.conversions(entry, "gguf")):
        entry = builds[0]
    return Reference(text, entry.repository, None if entry.revision == "main" else entry.revision, tag=tag)


def _hub(text: str) -> Reference | None:
    """Read [hf://]ORG/REPO[@REVISION][:FILE or TAG]."""
    match = _HUB.fullmatch(re.sub(r"^hf://(?:models/)?", "", text, flags=re.I))
    if match is None:
        return None
    rest = match["rest"] or ""
    is_file = "." in rest and not re.fullmatch(r"[A-Za-z0-9_.-]*\d", rest)
    return Reference(
        text, match["repository"], match["revision"], file=rest if is_file else "", tag="" if is_file else rest
    )


def _web(text: str) -> Reference | None:
    """Read a page or file of the hub, or any other https address of a file."""
    address = urlsplit(text)
    if (address.hostname or "") in _HOSTS and (page := _PAGE.fullmatch(unquote(address.path))):
        return Reference(text, page["repository"], _branch(page["revision"]), file=page["file"] or "")
    name = unquote(address.path).rpartition("/")[2]
    if not address.hostname or not name:
        return None
    if address.username or address.password:
        raise UsageError(
            _("A password does not belong in an address."), _("Use an address without one, or fetch the file yourself.")
        )
    return Reference(text, url=text)


def _plain(text: str) -> Reference | None:
    """Read http:// only for this machine itself: elsewhere anyone on the way could change the file."""
    if urlsplit(text).hostname in ("127.0.0.1", "localhost", "::1"):
        return _web(text)
    raise UsageError(
        _("{text} is not encrypted.").format(text=text), _("Write https:// instead, or fetch the file yourself.")
    )


def _file(text: str) -> Reference | None:
    """Read file:///PATH."""
    address = urlsplit(text)
    if address.netloc not in ("", "localhost") or not address.path:
        return None
    return Reference(text, path=Path(url2pathname(address.path)))


def _branch(revision: str | None) -> str | None:
    return None if revision == "main" else revision


def _suggestion(near: list[str]) -> str:
    if near:
        return _("Did you mean {names}?").format(names=", ".join(near))
    return _("`vigtui search WORDS` finds models; ORG/REPO names any repository on the hub.")
