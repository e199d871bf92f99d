"""Tensors of a safetensors file or folder, found through the header and read in pieces.

Format: https://github.com/huggingface/safetensors#format (u64 length, JSON header, data). The safetensors package
refuses bfloat16 with numpy, so the bytes are viewed here.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...core.errors import FormatError
from ...core.i18n import _
from .. import document
from ..header import CutShort

if TYPE_CHECKING:
    import numpy as np

ITEM = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "U16": 2, "I16": 2, "F16": 2, "BF16": 2,
    "U32": 4, "I32": 4, "F32": 4, "U64": 8, "I64": 8, "F64": 8,
}  # fmt: skip
"""Bytes of one element by dtype."""
FLOATS = ("F16", "BF16", "F32", "F64")
HEADER_LIMIT = 100_000_000
"""The longest header that the reference implementation reads, in bytes."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """Where a tensor lies: bytes `begin` to `end` of `path`, row-major, little-endian."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    path: Path
    begin: int
    end: int


@dataclass(frozen=True, slots=True)
class Header:
    """The parsed header; `size` is the length in bytes that the whole file must have."""

    tensors: Mapping[str, Tensor]
    metadata: Mapping[str, str]
    size: int


def header(path: Path) -> Header:
    """Give the header of `path`, every number checked but the file's length. Raises FormatError."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > HEADER_LIMIT:
                raise ValueError(length)
            if length > path.stat().st_size - 8:
                raise CutShort(path, path.stat().st_size)
            entries = document.parse(file.read(min(length, document.LIMIT + 1)))
        metadata = entries.pop("__metadata__", {})
        tensors = {name: _tensor(name, entry, path, 8 + length) for name, entry in entries.items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise FormatError(
            _("{path} has no valid safetensors header.").format(path=path), _("Fetch it again.")
        ) from error
    return Header(tensors, metadata, max((t.end for t in tensors.values()), default=8 + length))


def _tensor(name: str, entry: Mapping[str, Any], path: Path, start: int) -> Tensor:
    dtype, shape, (begin, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
    numbers = (*shape, begin, end)
    if not all(type(n) is int and 0 <= n < 2**63 for n in numbers) or len(shape) > 8:
        raise ValueError(name)
    if dtype in ITEM and prod(shape) * ITEM[dtype] != end - begin:
        raise ValueError(name)
    return Tensor(name, str(dtype), shape, path, start + begin, start + end)


def shards(folder: Path, name: str = "model.safetensors") -> list[Path]:
    """Give the files that hold the weights of `folder`: those that NAME.index.json lists, or the file `name`."""
    listing = folder / f"{name}.index.json"
    if not listing.is_file():
        return [folder / name]
    try:
        with listing.open("rb") as file:
            names = sorted(set(document.parse(file.read(document.LIMIT + 1))["weight_map"].values()))
        if not names or any(not name or Path(name).name != name for name in names):
            raise ValueError(names)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise FormatError(_("{path} is damaged.").format(path=listing), _("Fetch it again.")) from error
    return [folder / name for name in names]


def whole(path: Path) -> Mapping[str, Tensor]:
    """Give the tensors of one file that is not cut short. Raises FormatError."""
    found = header(path)
    if path.stat().st_size < found.size:
        raise CutShort(path, path.stat().st_size, found.size)
    return found.tensors


def chunks(tensor: Tensor, rows: int = 1, limit: int = 8 << 20) -> "Iterator[np.ndarray]":
    """Yield `tensor` as float32 pieces along the first axis, each of whole groups of `rows` rows.

    A piece takes about `limit` bytes of the file, one group at least. Raises FormatError for another dtype than
    F16, BF16, F32, F64 and for a file that ends early.
    """
    if tensor.dtype not in FLOATS:
        raise FormatError(
            _("{path} stores {name} as {dtype}, which cannot be converted.").format(
                path=tensor.path, name=tensor.name, dtype=tensor.dtype
            ),
            _("Start from weights in F32, F16 or BF16."),
        )
    width, count = prod(tensor.shape[1:]), tensor.shape[0] if tensor.shape else 1
    step = max(1, limit // max(1, width * ITEM[tensor.dtype] * rows)) * rows
    for start in range(0, count, step):
        yield part(tensor, start, min(start + step, count))


def part(tensor: Tensor, start: int, stop: int) -> "np.ndarray":
    """Give rows `start` to `stop` of `tensor` as float32 (stop - start, …). Raises FormatError for a file too short."""
    import numpy as np  # 80 ms: only when weights are read

    width = prod(tensor.shape[1:]) * ITEM[tensor.dtype]
    with tensor.path.open("rb") as file:
        file.seek(tensor.begin + start * width)
        data = file.read((stop - start) * width)
    if len(data) != (stop - start) * width:
        raise CutShort(tensor.path, tensor.path.stat().st_size, tensor.end)
    return _floats(np, data, tensor.dtype).reshape(stop - start, *tensor.shape[1:])


def read(tensor: Tensor) -> "np.ndarray":
    """Give the whole tensor as float32."""
    (array,) = chunks(tensor, limit=max(1, tensor.end - tensor.begin))
    return array.reshape(tensor.shape)


@cache
def _halves() -> "np.ndarray":
    """Every float16 as float32: looking them up is three times as fast as numpy's conversion."""
    import numpy as np

    return np.arange(1 << 16, dtype=np.uint16).view(np.float16).astype(np.float32)


def _floats(np: Any, data: bytes, dtype: str) -> "np.ndarray":
    if dtype == "F16":
        places = np.frombuffer(data, "<u2")
        return np.take(_halves(), places, out=np.empty(places.shape, np.float32), mode="clip")
    if dtype == "BF16":  # the upper half of a float32
        return (np.frombuffer(data, "<u2").astype(np.uint32) << 16).view(np.float32)
    kind = {"F32": "<f4", "F64": "<f8"}[dtype]
    return np.frombuffer(data, kind).astype(np.float32)
