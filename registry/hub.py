"""The Hugging Face hub: what it holds and the way to its bytes. The one file that knows huggingface_hub.

Its own retries and its own downloads are not used: it no longer resumes (2.4). Of the environment it honours
HF_ENDPOINT, HF_HUB_OFFLINE, HF_HOME, HF_HUB_CACHE and HF_TOKEN; tokens come from the hub's own store or HF_TOKEN.
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core import paths
from ..core.errors import FormatError, NetworkError, NotFoundError
from ..core.i18n import _
from ..core.text import line
from .refusal import Interrupted, refused

if TYPE_CHECKING:
    from huggingface_hub import HfApi

_TIMEOUT = 10.0  # seconds for an answer, as the hub's own HF_HUB_ETAG_TIMEOUT
_SMALL = 1 << 20
_YES = ("1", "on", "yes", "true")


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file of a repository: its size in bytes, and for large files its sha256 in hex (LFS)."""

    name: str
    size: int
    sha256: str | None = None


@dataclass(frozen=True, slots=True)
class Repository:
    """A repository at one commit, as its metadata tell; `name` is the present one after renames."""

    name: str
    commit: str
    files: tuple[RemoteFile, ...]
    gated: bool = False
    licence: str = ""
    base: str = ""


@dataclass(frozen=True, slots=True)
class Found:
    """One result of a search."""

    repository: str
    downloads: int
    licence: str
    gated: bool


@dataclass(frozen=True, slots=True)
class Location:
    """Where the bytes of a file are: `url` (often signed, for an hour), its name in the cache, its size if known.

    `private` when the token is needed there too; `condition` is an If-Range, for a file that may change.
    """

    url: str
    etag: str
    size: int | None
    private: bool = False
    condition: str = ""


def endpoint() -> str:
    """Give the hub's address: HF_ENDPOINT, or the public one."""
    return os.environ.get("HF_ENDPOINT", "").rstrip("/") or "https://huggingface.co"


def offline() -> bool:
    """Tell whether HF_HUB_OFFLINE forbids the network."""
    return os.environ.get("HF_HUB_OFFLINE", os.environ.get("TRANSFORMERS_OFFLINE", "")).lower() in _YES


def cache() -> Path:
    """Give the folder of the hub's cache, which every tool shares (huggingface_hub.constants.HF_HUB_CACHE)."""
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if value := os.environ.get(name):
            return _expanded(value)
    return paths.hub() / "hub"


def folder(repository: str) -> Path:
    """Give the repository's folder in the cache."""
    return cache() / f"models--{repository.replace('/', '--')}"


def repository(name: str, revision: str | None = None) -> Repository:
    """Give what the repository holds at `revision` (main). Raises NotFoundError or NetworkError."""
    with _asking(name, revision):
        api = _api()
        info = api.model_info(name, revision=revision, files_metadata=True, timeout=_TIMEOUT, token=None)
        files = tuple(_file(one) for one in info.siblings or ())
        if any(file.size < 0 for file in files):  # a mirror that ignores files_metadata
            files = tuple(_tree(api, info.id, info.sha or "main"))
    card: Any = info.card_data or {}
    base = card.get("base_model") or ""
    return Repository(
        info.id,
        _commit(info.sha),
        files,
        bool(info.gated),
        line(str(card.get("license_name") or card.get("license") or "")),
        base if isinstance(base, str) else str(base[0]),
    )


def revisions(name: str) -> tuple[str, ...]:
    """Give the names of the repository's branches and tags. Raises NotFoundError or NetworkError."""
    with _asking(name):
        refs = _api().list_repo_refs(name)
    return tuple(ref.name for ref in (*refs.branches, *refs.tags))


def search(words: str, limit: int = 20) -> list[Found]:
    """Give repositories of models on the hub, as the hub ranks them. Raises NetworkError."""
    with _asking(words):
        return [
            Found(line(one.id), one.downloads or 0, line(_licence(one.tags or [])), bool(one.gated))
            for one in _api().list_models(search=words, limit=limit)
        ]


def small(name: str, commit: str, file: str, most: int = _SMALL) -> bytes:
    """Give the first `most` bytes of a file, without keeping them. Raises NotFoundError or NetworkError."""
    with fetch(locate(name, commit, file), 0, most) as (_at, blocks):
        return b"".join(blocks)


def locate(name: str, commit: str, file: str) -> Location:
    """Give where the bytes of `file` are. Raises Interrupted when a retry may help, else as `repository` does."""
    with _asking(name, commit, file):
        from huggingface_hub import get_hf_file_metadata, hf_hub_url

        url = hf_hub_url(name, file, revision=commit, endpoint=endpoint())
        found = get_hf_file_metadata(url, timeout=_TIMEOUT, endpoint=endpoint())
        same = _origin(found.location) == _origin(url)
    if not re.fullmatch(r"[0-9A-Za-z][0-9A-Za-z_.-]{0,254}", found.etag or ""):  # it becomes a file's name
        raise FormatError(
            _("{name} gives no usable ETag for {file}.").format(name=endpoint(), file=file),
            _("If HF_ENDPOINT is set, check that it points to a hub."),
        )
    return Location(found.location, found.etag or "", found.size, private=same)


def at(url: str) -> Location:
    """Give what a bare address tells of its file. Raises Interrupted, NotFoundError or NetworkError.

    The ETag is empty when the server names no version or gives no parts: then nothing can be resumed.
    """
    with _asking(url):
        from huggingface_hub.utils import get_session

        headers = {"Accept-Encoding": "identity", "Range": "bytes=0-0"}  # some signed addresses refuse HEAD
        with get_session().stream("GET", url, headers=headers, timeout=_TIMEOUT) as answer:
            answer.raise_for_status()
            parts = answer.status_code == 206
            size = (
                answer.headers.get("Content-Range", "").rpartition("/")[2]
                if parts
                else answer.headers.get("Content-Length", "")
            )
            tag = answer.headers.get("ETag", "") or answer.headers.get("Last-Modified", "")
    version = tag if parts and not tag.startswith("W/") else ""
    return Location(url, version, int(size) if size.isdigit() else None, condition=version)


@contextmanager
def fetch(location: Location, start: int, end: int | None = None) -> Iterator[tuple[int, Iterator[bytes]]]:
    """Give the bytes from `start` up to `end`, as they come, and the place of the first: 0 when ranges are ignored.

    Raises Interrupted when a retry may help, NetworkError otherwise.
    """
    with _asking(location.url):
        from huggingface_hub import constants
        from huggingface_hub.utils import get_session, hf_raise_for_status

        last = "" if end is None else end - 1
        headers = {"Accept-Encoding": "identity", "Range": f"bytes={start}-{last}", **_credentials(location)}
        if location.condition:
            headers["If-Range"] = location.condition
        with get_session().stream(
            "GET", location.url, headers=headers, timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT
        ) as answer:
            hf_raise_for_status(answer)
            whole = answer.status_code == 200
            place = re.match(r"bytes (\d+)-", answer.headers.get("Content-Range", ""))
            if not whole and (place is None or int(place[1]) != start):
                raise Interrupted(_("{url} sent another part than asked.").format(url=location.url))
            yield (0 if whole else start), answer.iter_raw()


def link(name: str, commit: str, file: str) -> Path:
    """Give the path of `file` in the snapshot of `commit`, linked to its blob, which must be there already.

    Raises Interrupted when a retry may help, else as `repository` does.
    """
    with _asking(name, commit, file):
        from huggingface_hub import hf_hub_download

        return Path(hf_hub_download(name, file, revision=commit, endpoint=endpoint(), cache_dir=str(cache())))


def _api() -> "HfApi":
    from huggingface_hub import HfApi  # 150 ms

    return HfApi(endpoint=endpoint())


def _tree(api: "HfApi", name: str, commit: str) -> Iterator[RemoteFile]:
    for one in api.list_repo_tree(name, recursive=True, revision=commit):
        size, lfs = getattr(one, "size", None), getattr(one, "lfs", None)
        if size is not None:
            yield RemoteFile(one.path, size, lfs.sha256 if lfs else None)


def _file(sibling: Any) -> RemoteFile:
    size = sibling.lfs.size if sibling.lfs else sibling.size
    return RemoteFile(sibling.rfilename, -1 if size is None else size, sibling.lfs.sha256 if sibling.lfs else None)


def _commit(sha: str | None) -> str:
    if not re.fullmatch("[0-9a-f]{40}", sha or ""):
        raise FormatError(
            _("{name} names no commit.").format(name=endpoint()),
            _("If HF_ENDPOINT is set, check that it points to a hub."),
        )
    return sha or ""


def _licence(tags: list[str]) -> str:
    return next((tag.partition(":")[2] for tag in tags if tag.startswith("license:")), "")


def _credentials(location: Location) -> dict[str, str]:
    """Give the token's header for the hub itself; a CDN must not see it."""
    from huggingface_hub.utils import build_hf_headers

    if not location.private:
        return {}
    return {name: value for name, value in build_hf_headers().items() if name.lower() == "authorization"}


def _origin(url: str) -> str:
    return "/".join(url.split("/", 3)[:3])


def _expanded(text: str) -> Path:
    return Path(os.path.expandvars(os.path.expanduser(text)))


@contextmanager
def _asking(name: str, revision: str | None = None, file: str = "") -> Iterator[None]:
    """Refuse when offline; turn what the client and its transport raise into our errors."""
    if offline():
        raise NetworkError(
            _("{name} is not here, and the offline mode forbids the network.").format(name=name),
            _("Leave out --offline, or unset HF_HUB_OFFLINE."),
        )
    import httpx2  # the transport of huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError
    from huggingface_hub.utils import logging

    logging.set_verbosity_error()  # it would write its own advice onto the terminal
    try:
        yield
    except HFValidationError as error:
        raise NotFoundError(_("{name} cannot be a repository's name.").format(name=name)) from error
    except (httpx2.HTTPError, HfHubHTTPError, httpx2.InvalidURL, OSError) as error:
        if isinstance(error, OSError) and not isinstance(error, HfHubHTTPError | ConnectionError | TimeoutError):
            raise  # the disk's, not the network's
        raise refused(error, name, revision, file, endpoint()) from error
