"""What the hub holds: repositories, their branches and the files of each commit."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

LFS = (".gguf", ".safetensors", ".bin", ".pt", ".pth", ".model")
"""Endings that the hub keeps in LFS whatever the size."""
_BLOCK = 1 << 20


@dataclass(frozen=True, slots=True)
class Stored:
    """One file: its bytes or where they lie, the git and (for LFS) sha256 names, and the size that is claimed."""

    name: str
    data: bytes | Path
    oid: str
    sha256: str | None
    size: int

    @property
    def etag(self) -> str:
        """The name under which clients keep it."""
        return self.sha256 or self.oid

    def read(self, start: int, length: int) -> bytes:
        """Give `length` bytes from `start`."""
        if isinstance(self.data, bytes):
            return self.data[start : start + length]
        with self.data.open("rb") as file:
            file.seek(start)
            return file.read(length)


def stored(name: str, data: bytes | Path, claimed: int | None = None) -> Stored:
    """Give `data` as the hub keeps it; `claimed` is a size to lie about."""
    size = len(data) if isinstance(data, bytes) else data.stat().st_size
    git, sha = hashlib.sha1(b"blob %d\0" % size), hashlib.sha256()
    whole = Stored(name, data, "", None, size)
    for start in range(0, size, _BLOCK):
        block = whole.read(start, _BLOCK)
        git.update(block)
        sha.update(block)
    return Stored(name, data, git.hexdigest(), sha.hexdigest() if name.endswith(LFS) else None, claimed or size)


@dataclass(slots=True)
class Repository:
    """A repository: branches by name, commits by hash, who may read it."""

    name: str
    gated: str | bool = False
    private: bool = False
    card: Mapping[str, Any] = field(default_factory=dict)
    downloads: int = 0
    branches: dict[str, str] = field(default_factory=dict)
    commits: dict[str, dict[str, Stored]] = field(default_factory=dict)

    def commit(self, revision: str, files: Mapping[str, bytes | Path], claimed: Mapping[str, int]) -> str:
        """Put `files` as a new commit on the branch `revision`; give its hash."""
        held = {name: stored(name, data, claimed.get(name)) for name, data in sorted(files.items())}
        listing = "".join(f"{file.oid} {name}\n" for name, file in held.items())
        hash = hashlib.sha1(f"{self.name} {revision}\n{listing}".encode()).hexdigest()
        self.branches[revision], self.commits[hash] = hash, held
        return hash

    def resolve(self, revision: str) -> str | None:
        """Give the commit that a branch, a tag or a commit's hash means."""
        return self.branches.get(revision) or (revision if revision in self.commits else None)

    def info(self, commit: str, blobs: bool) -> dict[str, Any]:
        """Give the answer of /api/models/NAME."""
        return {
            "_id": "0" * 24,
            "id": self.name,
            "modelId": self.name,
            "author": self.name.partition("/")[0],
            "sha": commit,
            "lastModified": "2023-10-20T12:00:00.000Z",
            "createdAt": "2023-07-20T12:00:00.000Z",
            "private": self.private,
            "gated": self.gated,
            "disabled": False,
            "downloads": self.downloads,
            "likes": 0,
            "tags": [f"license:{self.card['license']}"] if "license" in self.card else [],
            "cardData": dict(self.card),
            "siblings": [_sibling(file, blobs) for file in self.commits[commit].values()],
        }

    def tree(self, commit: str) -> list[dict[str, Any]]:
        """Give the entries of /api/models/NAME/tree/REVISION?recursive=True."""
        return [
            {
                "type": "file",
                "oid": file.oid,
                "size": file.size,
                "path": file.name,
                **({"lfs": {"oid": file.sha256, "size": file.size, "pointerSize": 134}} if file.sha256 else {}),
            }
            for file in self.commits[commit].values()
        ]


def _sibling(file: Stored, blobs: bool) -> dict[str, Any]:
    if not blobs:
        return {"rfilename": file.name}
    lfs = {"sha256": file.sha256, "size": file.size, "pointerSize": 134}
    return {"rfilename": file.name, "size": file.size, "blobId": file.oid, **({"lfs": lfs} if file.sha256 else {})}
