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
from .pickled import Tensor

_DIRECTORY = 2 << 20
_DAMAGE = (ValueError, KeyError, zipfile.BadZipFile, struct.error, EOFError, NotImplementedError, RuntimeError)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The tensors by name, the strange functions that unpickling would call, and the bytes the file has and needs.

    `places` are the bytes of the file where the storages lie, key → (begin, end).
    """

    tensors: Mapping[str, Tensor]
    empty: bool
    strange: tuple[str, ...]
    size: int
    expected: int
    places: Mapping[str, tuple[int, int]]

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
        except _DAMAGE as error:
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
        prefix, places = main[: -len("data.pkl")], {}
        _refuse_big_endian(archive, entries.get(f"{prefix}byteorder"))
        for key, (dtype, count) in found.storages.items():
            places[key] = _place(file, entries[f"{prefix}data/{key}"], archive.start_dir)
            if places[key][1] - places[key][0] < count * ITEM.get(dtype, 1):
                raise ValueError(key)
    _refuse_overlap(places)
    return Checkpoint(found.tensors, found.empty, found.strange, size, size, places)


def _place(file: BinaryIO, entry: zipfile.ZipInfo, end: int) -> tuple[int, int]:
    """Give the bytes of a stored entry; its local header may be longer than the directory tells (torch aligns)."""
    file.seek(entry.header_offset)
    head = file.read(30)
    if entry.compress_type or entry.flag_bits & 1 or entry.compress_size != entry.file_size or head[:4] != b"PK\3\4":
        raise ValueError(entry.filename)
    begin = entry.header_offset + 30 + sum(struct.unpack_from("<2H", head, 26))
    if begin + entry.file_size > end:
        raise ValueError(entry.filename)
    return begin, begin + entry.file_size


def _refuse_big_endian(archive: zipfile.ZipFile, entry: zipfile.ZipInfo | None) -> None:
    if entry:
        with archive.open(entry) as opened:
            if opened.read(3) == b"big":
                raise ValueError("byteorder")


def _refuse_overlap(places: Mapping[str, tuple[int, int]]) -> None:
    end = 0
    for begin, after in sorted(places.values()):
        if begin < end:
            raise ValueError("overlap")
        end = after


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
        order = pickled.keys(data)
    except ValueError:
        if size <= len(OLD_TORCH) + pickled.LIMIT:
            raise CutShort(path, size) from None
        raise
    at, places = len(OLD_TORCH) + data.tell(), {}
    for key in order:
        dtype, count = found.storages[key]
        places[key] = (at + 8, at := at + 8 + count * ITEM.get(dtype, 1))
    if len(places) < len(order) or places.keys() != found.storages.keys():
        raise ValueError("keys")
    if size < at:
        raise CutShort(path, size, at)
    for key, (begin, _end) in places.items():
        file.seek(begin - 8)
        if int.from_bytes(file.read(8), "little") != found.storages[key][1]:
            raise ValueError(key)
    return Checkpoint(found.tensors, found.empty, found.strange, size, at, places)
