"""sha256 of files, computed once: kept in the cache under path, size and time of change."""

import hashlib
import json
from pathlib import Path

from ..core import config, paths
from ..core.errors import NotFoundError
from ..core.i18n import _
from ..core.progress import Progress, silent
from .record import Record

_BLOCK = 4 << 20


def sha256(path: Path, progress: Progress = silent) -> str:
    """Give the hash of `path` in hex, read only when the file has changed since. Raises NotFoundError."""
    try:
        stat = path.stat()
    except OSError as error:
        raise NotFoundError(
            _("{path} is not there any more.").format(path=path), _("Add or pull the model again.")
        ) from error
    key = str(path.resolve())
    state = [stat.st_size, stat.st_mtime_ns, stat.st_ino]
    known = _load().get(key)
    if isinstance(known, list) and known[:3] == state:
        return str(known[3])
    digest = _digest(path, stat.st_size, progress)
    _keep(key, state, digest)
    return digest


def remember(path: Path, digest: str) -> None:
    """Keep the hash of a file that was hashed while it was written."""
    stat = path.stat()
    _keep(str(path.resolve()), [stat.st_size, stat.st_mtime_ns, stat.st_ino], digest)


def fingerprint(record: Record, progress: Progress = silent) -> str:
    """Give one hash for the whole model: the file's own, or that of the `sha256sum` listing of several."""
    digests = [(sha256(file.path, progress), file.path.name) for file in record.files]
    if len(digests) == 1:
        return digests[0][0]
    listing = "".join(f"{digest}  {name}\n" for digest, name in digests)
    return hashlib.sha256(listing.encode()).hexdigest()


def _keep(key: str, state: list[int], digest: str) -> None:
    config.write(paths.cache() / "hashes.json", json.dumps({**_load(), key: [*state, digest]}, indent=0))


def _load() -> dict[str, object]:
    try:
        known = json.loads((paths.cache() / "hashes.json").read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return known if isinstance(known, dict) else {}


def _digest(path: Path, size: int, progress: Progress) -> str:
    digest, done = hashlib.sha256(), 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
            done += len(block)
            progress(_("hash"), done, size)
    return digest.hexdigest()
