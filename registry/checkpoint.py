"""What a PyTorch file holds, from its ZIP directory and its pickle, with nothing unpickled.

Formats: torch.save since 1.6 (a ZIP of NAME/data.pkl and NAME/data/KEY, stored), and before (several pickles, then
the storages).
"""

import io
import struct
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import BinaryIO

from ..core.errors import FormatError
from ..core.i18n import _
from . import pickled
from .convert.safetensors import ITEM
from .header import CutShort
from .kind import OLD_TORCH
from .pickled import Pickled, Tensor

_DIRECTORY = 2 << 20


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The tensors by name, the strange functions that unpickling would call, and the bytes the file has and needs."""

    tensors: Mapping[str, Tensor]
    empty: bool
    strange: tuple[str, ...]
    size: int
    expected: int

    @property
    def parameters(self) -> int:
        """Elements of all tensors."""
        return sum(prod(tensor.shape) for tensor in self.tensors.values())


def read(path: Path) -> Checkpoint:
    """Give what the PyTorch file `path` holds. Raises FormatError, CutShort when it ends early."""
    with path.open("rb") as file:
        start = file.read(len(OLD_TORCH))
        try:
            return _zip(path, file) if start.startswith(b"PK") else _old(path, file)
        except (ValueError, zipfile.BadZipFile, struct.error, EOFError, NotImplementedError, RuntimeError) as error:
            raise FormatError(
                _("{path} is not a PyTorch file that can be read.").format(path=path), _("Fetch it again.")
            ) from error


def _zip(path: Path, file: BinaryIO) -> Checkpoint:
    size = path.stat().st_size
    _refuse_large(file, path, size)
    with zipfile.ZipFile(file) as archive:
        entries = {entry.filename: entry for entry in archive.infolist()}
        main = next((name for name in entries if name == "data.pkl" or name.endswith("/data.pkl")), None)
        if main is None or entries[main].compress_type != zipfile.ZIP_STORED:
            raise ValueError(_("no data.pkl"))
        with archive.open(main) as opened:
            found = pickled.read(io.BytesIO(opened.read(pickled.LIMIT)))
    lengths = {name.removeprefix(main[: -len("data.pkl")]): entry.file_size for name, entry in entries.items()}
    for tensor in found.tensors.values():
        if lengths.get(f"data/{tensor.key}", -1) < tensor.stored * ITEM.get(tensor.dtype, 1):
            raise ValueError(tensor.key)
    return _checkpoint(found, size, size)


def _refuse_large(file: BinaryIO, path: Path, size: int) -> None:
    """Find the ZIP's directory at the end, and refuse one that is missing (cut short) or would fill the memory."""
    file.seek(max(0, size - 65_557))
    tail = file.read(65_557)
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or len(tail) < at + 22:
        raise CutShort(path, size)
    length, start = struct.unpack_from("<II", tail, at + 12)
    wide = tail.rfind(b"PK\x06\x06")
    if 0xFFFFFFFF in (length, start) and wide >= 0:
        length, start = struct.unpack_from("<QQ", tail, wide + 40)
    if length > _DIRECTORY:
        raise ValueError(length)
    if start + length > size:
        raise CutShort(path, size, start + length)


def _old(path: Path, file: BinaryIO) -> Checkpoint:
    size = path.stat().st_size
    file.seek(len(OLD_TORCH))
    data = io.BytesIO(file.read(pickled.LIMIT))
    for _part in ("protocol", "system"):
        pickled.read(data)
    try:
        found = pickled.read(data)
    except ValueError:
        if size <= len(OLD_TORCH) + pickled.LIMIT:
            raise CutShort(path, size) from None
        raise
    storages = {tensor.key: tensor.stored * ITEM.get(tensor.dtype, 1) for tensor in found.tensors.values()}
    expected = len(OLD_TORCH) + data.tell() + sum(storages.values())
    if storages and size < expected:
        raise CutShort(path, size, expected)
    return _checkpoint(found, size, expected)


def _checkpoint(found: Pickled, size: int, expected: int) -> Checkpoint:
    return Checkpoint(found.tensors, found.empty, found.strange, size, expected)
