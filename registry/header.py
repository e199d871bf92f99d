"""The header of a GGUF file, versions 1 to 3, read without loading it and without believing its counts.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. Arrays are skipped, not built: their place is kept.
"""

import struct
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO
from math import prod
from pathlib import Path
from typing import BinaryIO

from ..core.errors import FormatError
from ..core.i18n import _

SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
"""Value type → struct code; 8 is a string, 9 an array."""
STRING, ARRAY = 8, 9
TYPES = {
    0: ("F32", 1, 4), 1: ("F16", 1, 2), 2: ("Q4_0", 32, 18), 3: ("Q4_1", 32, 20), 6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24), 8: ("Q8_0", 32, 34), 9: ("Q8_1", 32, 40), 10: ("Q2_K", 256, 84), 11: ("Q3_K", 256, 110),
    12: ("Q4_K", 256, 144), 13: ("Q5_K", 256, 176), 14: ("Q6_K", 256, 210), 15: ("Q8_K", 256, 292),
    16: ("IQ2_XXS", 256, 66), 17: ("IQ2_XS", 256, 74), 18: ("IQ3_XXS", 256, 98), 19: ("IQ1_S", 256, 50),
    20: ("IQ4_NL", 32, 18), 21: ("IQ3_S", 256, 110), 22: ("IQ2_S", 256, 82), 23: ("IQ4_XS", 256, 136),
    24: ("I8", 1, 1), 25: ("I16", 1, 2), 26: ("I32", 1, 4), 27: ("I64", 1, 8), 28: ("F64", 1, 8),
    29: ("IQ1_M", 256, 56), 30: ("BF16", 1, 2), 34: ("TQ1_0", 256, 54), 35: ("TQ2_0", 256, 66),
    39: ("MXFP4", 32, 17), 40: ("NVFP4", 64, 36), 41: ("Q1_0", 128, 18), 42: ("Q2_0", 64, 18),
}  # fmt: skip
"""Tensor type → name, elements in a block, bytes of a block (ggml.c type_traits)."""
ENTRIES, ITEMS, TEXT = 65_536, 1 << 20, 1 << 20
"""Bounds: keys or tensors in a file, strings in an array, bytes of a string that is kept (6 of them in all)."""
_WINDOW = 1 << 20


class CutShort(FormatError):
    """The file has `size` bytes and ends before its header does, or before the `expected` bytes that it promises."""

    def __init__(self, path: Path, size: int, expected: int | None = None) -> None:
        text = _("{path} is cut short: it ends inside its header.")
        if expected is not None:
            text = _("{path} is cut short: {size} of {expected} bytes.")
        super().__init__(text.format(path=path, size=size, expected=expected), _("Fetch it again."))
        self.size, self.expected = size, expected


@dataclass(frozen=True, slots=True)
class Array:
    """An array that was skipped: value type, number of items, and where the first lies in the file."""

    kind: int
    count: int
    at: int


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor's name, shape in ggml's order (row length first), type number and offset after the header."""

    name: str
    shape: tuple[int, ...]
    kind: int
    offset: int

    @property
    def size(self) -> int:
        """Bytes of its data; 0 for a type that is not known."""
        _name, block, width = TYPES.get(self.kind, ("?", 1, 0))
        return prod(self.shape) // block * width


Value = int | float | bool | str | Array


@dataclass(frozen=True, slots=True)
class Header:
    """What the header says; `expected` is the length in bytes that the file must have, `size` the one it has."""

    path: Path
    version: int
    big_endian: bool
    metadata: Mapping[str, Value]
    tensors: tuple[Tensor, ...]
    expected: int
    size: int

    @property
    def architecture(self) -> str:
        """general.architecture, or nothing."""
        return self.text("general.architecture")

    def text(self, key: str) -> str:
        """Give the string under `key`, or nothing."""
        value = self.metadata.get(key)
        return value if isinstance(value, str) else ""

    def number(self, key: str) -> int | float | None:
        """Give the number under `key`, where ARCH stands for the architecture, or None."""
        value = self.metadata.get(key.replace("ARCH", self.architecture))
        return None if isinstance(value, str | Array) else value


def read(path: Path) -> Header:
    """Give the header of the GGUF file at `path`. Raises FormatError, CutShort when the file ends inside it."""
    with path.open("rb") as file:
        return _Reader(file, path).header()


def beginning(data: bytes) -> dict[str, Value | list[int]]:
    """Give the keys that the first bytes of a GGUF file hold; of an array that goes on behind them, its count."""
    reader = _Reader(BytesIO(data), Path(), len(data))
    found: dict[str, Value | list[int]] = {}
    with suppress(FormatError):
        for _index in range(reader.counts()[2]):
            key, kind = reader.string(), reader.unpack("I")
            reader.array = None
            try:
                found[key] = reader.value(kind)
            finally:
                if reader.array:
                    found[key] = reader.array
            if reader.array and _short(reader.array):
                found[key] = reader.integers(reader.array)
    return found


def tokens(header: Header) -> Iterator[bytes]:
    """Yield each token of the vocabulary as it stands in the file."""
    array = header.metadata.get("tokenizer.ggml.tokens")
    if not isinstance(array, Array) or array.kind != STRING:
        return
    with header.path.open("rb") as file:
        reader = _Reader(file, header.path)
        reader.start(header.version, header.big_endian)
        reader.seek(array.at)
        yield from reader.strings(array.count)


def integers(header: Header, endings: tuple[str, ...]) -> dict[str, list[int]]:
    """Give the short arrays of integers, one value a layer, whose keys end so."""
    arrays = {
        key: value
        for key, value in header.metadata.items()
        if isinstance(value, Array) and key.endswith(endings) and _short(value)
    }
    if not arrays:
        return {}
    with header.path.open("rb") as file:
        reader = _Reader(file, header.path)
        reader.start(header.version, header.big_endian)
        found: dict[str, list[int]] = {}
        for key, array in arrays.items():
            found[key] = reader.integers(array)
    return found


def _short(array: Array) -> bool:
    """Tell whether an array can hold one integer a layer."""
    return array.kind in (4, 5, 10, 11) and array.count <= 4096


class _Reader:
    """A window over the file that moves forward; every length is checked against the file's end."""

    def __init__(self, file: BinaryIO, path: Path, size: int | None = None) -> None:
        self.file, self.path, self.size = file, path, path.stat().st_size if size is None else size
        self.array: Array | None = None
        self.budget = 6 * TEXT
        self.at, self.base, self.data = 0, 0, b""
        self.big_endian = False
        self.start(3, False)

    def start(self, version: int, big_endian: bool) -> None:
        order = ">" if big_endian else "<"
        self.order, self.count = order, struct.Struct(order + ("I" if version == 1 else "Q"))

    def counts(self) -> tuple[int, int, int]:
        """Give the version and how many tensors and keys the file claims."""
        if self.take(4) != b"GGUF":
            raise self.damaged()
        version = int.from_bytes(self.take(4), "little")
        big_endian = version & 0xFFFF == 0
        if big_endian:
            version = int.from_bytes(version.to_bytes(4, "little"), "big")
        if version not in (1, 2, 3):
            raise self.damaged()
        self.big_endian = big_endian
        self.start(version, big_endian)
        n_tensors, n_keys = self.length(), self.length()
        if n_tensors > ENTRIES or n_keys > ENTRIES:
            raise self.damaged()
        return version, n_tensors, n_keys

    def header(self) -> Header:
        version, n_tensors, n_keys = self.counts()
        metadata = dict(self.pair() for _index in range(n_keys))
        tensors = tuple(self.tensor() for _index in range(n_tensors))
        if len(metadata) != n_keys or len({tensor.name for tensor in tensors}) != n_tensors:
            raise self.damaged()
        expected = self.end(metadata, tensors)
        return Header(self.path, version, self.big_endian, metadata, tensors, expected, self.size)

    def pair(self) -> tuple[str, Value]:
        key = self.string()
        return key, self.value(self.unpack("I"))

    def value(self, kind: int) -> Value:
        if kind == STRING:
            return self.string()
        if kind in SCALARS:
            return self.unpack(SCALARS[kind])
        if kind != ARRAY:
            raise self.damaged()
        item, count = self.unpack("I"), self.length()
        self.array = array = Array(item, count, self.at)
        if item == STRING and count <= ITEMS:
            self.skip_strings(count)
        elif item in SCALARS:
            self.seek(self.at + count * struct.calcsize("<" + SCALARS[item]))
        else:
            raise self.damaged()
        return array

    def integers(self, array: Array) -> list[int]:
        self.seek(array.at)
        return [self.unpack(SCALARS[array.kind]) for _index in range(array.count)]

    def tensor(self) -> Tensor:
        name, dimensions = self.string(), self.unpack("I")
        if not 0 < dimensions <= 4:
            raise self.damaged()
        shape = tuple(self.length() for _index in range(dimensions))
        return Tensor(name, shape, self.unpack("I"), self.unpack("Q"))

    def end(self, metadata: Mapping[str, Value], tensors: tuple[Tensor, ...]) -> int:
        alignment = metadata.get("general.alignment", 32)
        if type(alignment) is not int or not 0 < alignment <= 1 << 20:
            raise self.damaged()
        data = -(-self.at // alignment) * alignment
        return max((data + tensor.offset + tensor.size for tensor in tensors), default=self.at)

    def skip_strings(self, count: int) -> None:
        unpack, width = self.count.unpack_from, self.count.size
        while count:
            data, at, base = self.data, self.at - self.base, self.base
            with suppress(struct.error, OverflowError, IndexError):  # past the window
                while count:
                    at += width + unpack(data, at)[0]
                    count -= 1
            self.seek(base + at, width if count else 0)

    def strings(self, count: int) -> Iterator[bytes]:
        unpack, width = self.count.unpack_from, self.count.size
        while count:
            data, at = self.data, self.at - self.base
            with suppress(struct.error, OverflowError, IndexError):  # past the window
                while count and (end := at + width + unpack(data, at)[0]) <= len(data):
                    yield data[at + width : end]
                    at, count = end, count - 1
            self.seek(self.base + at)
            if count:
                yield self.take(self.length())
                count -= 1

    def string(self) -> str:
        length = self.length()
        if length > min(TEXT, self.budget):
            self.seek(self.at + length)
            return ""
        self.budget -= length
        return self.take(length).decode("utf-8", "replace")

    def length(self) -> int:
        return self.count.unpack(self.take(self.count.size))[0]

    def unpack(self, code: str) -> int:
        return struct.unpack(self.order + code, self.take(struct.calcsize(self.order + code)))[0]

    def take(self, length: int) -> bytes:
        if self.at + length > self.base + len(self.data):
            self.seek(self.at, length)
        start = self.at - self.base
        self.at += length
        return self.data[start : start + length]

    def seek(self, at: int, need: int = 0) -> None:
        """Go to byte `at` and have `need` bytes there in the window."""
        if at + need <= self.size and not self.base <= at <= at + need <= self.base + len(self.data):
            self.file.seek(at)
            self.base, self.data = at, self.file.read(max(need, _WINDOW))
        if at + need > min(self.size, self.base + len(self.data)):
            raise CutShort(self.path, self.size)
        self.at = at

    def damaged(self) -> FormatError:
        return FormatError(_("{path} has a damaged GGUF header.").format(path=self.path), _("Fetch it again."))
