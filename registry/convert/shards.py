"""Tensors written in pieces, without torch: safetensors shards with their index, and PyTorch's zip archives.

Formats: https://github.com/huggingface/safetensors#format; torch.save since 1.6 (see checkpoint.py), pickle protocol 2.
"""

import json
import struct
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import IO, BinaryIO

from .. import pickled
from .safetensors import ITEM

SHARD = 5_000_000_000
"""Bytes of weights in one file of a Hugging Face folder, as transformers wrote them before version 5."""
_ALIGNMENT = 64


@dataclass(frozen=True, slots=True)
class Written:
    """A tensor to write: `dtype` as in safetensors, `shape`, and its bytes in order, row-major and little-endian."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    pieces: Callable[[], Iterator[bytes]]

    @property
    def size(self) -> int:
        """Bytes of its data."""
        return prod(self.shape) * ITEM[self.dtype]


Report = Callable[[], None]
"""Called after each tensor."""


def safetensors(folder: Path, outputs: Sequence[Written], report: Report, limit: int = SHARD) -> None:
    """Write `outputs` as model.safetensors in `folder`, or as shards of at most `limit` bytes with their index."""
    groups = _grouped(outputs, limit)
    if len(groups) == 1:
        return file(folder / "model.safetensors", groups[0], report)
    names = [f"model-{n:05}-of-{len(groups):05}.safetensors" for n in range(1, len(groups) + 1)]
    for name, group in zip(names, groups, strict=True):
        file(folder / name, group, report)
    listing = {
        "metadata": {"total_size": sum(output.size for output in outputs)},
        "weight_map": {output.name: name for name, group in zip(names, groups, strict=True) for output in group},
    }
    (folder / "model.safetensors.index.json").write_text(json.dumps(listing, indent=2) + "\n")


def _grouped(outputs: Sequence[Written], limit: int) -> list[list[Written]]:
    groups: list[list[Written]] = [[]]
    size = 0
    for output in outputs:
        if groups[-1] and size + output.size > limit:
            groups.append([])
            size = 0
        groups[-1].append(output)
        size += output.size
    return groups


def file(path: Path, outputs: Sequence[Written], report: Report) -> None:
    """Write `outputs` in their order as the safetensors file `path`."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    at = 0
    for output in outputs:
        header[output.name] = {
            "dtype": output.dtype,
            "shape": output.shape,
            "data_offsets": (at, at := at + output.size),
        }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as opened:
        opened.write(len(text).to_bytes(8, "little") + text)
        for output in outputs:
            _copy(output, opened)
            report()


def archive(path: Path, outputs: Sequence[Written], report: Report) -> None:
    """Write `outputs` as a state dictionary that `torch.load` reads, each in a storage of its own."""
    with path.open("wb") as file, zipfile.ZipFile(file, "w") as target:
        _entry(target, file, "data.pkl", [_pickle(outputs)])
        _entry(target, file, "byteorder", [b"little"])
        for key, output in enumerate(outputs):
            with _opened(target, file, f"data/{key}", output.size) as entry:
                _copy(output, entry)
            report()
        _entry(target, file, "version", [b"3\n"])


def _entry(target: zipfile.ZipFile, file: BinaryIO, name: str, data: Sequence[bytes]) -> None:
    with _opened(target, file, name, sum(map(len, data))) as entry:
        entry.writelines(data)


def _opened(target: zipfile.ZipFile, file: BinaryIO, name: str, size: int) -> IO[bytes]:
    """Open an entry whose data begins at a multiple of 64, as in torch's own files, so that it can be mapped."""
    info = zipfile.ZipInfo(f"archive/{name}")
    info.file_size = size
    start = file.tell() + 30 + len(info.filename) + 20 + 4  # local header, name, zip64 field, padding field
    padding = -start % _ALIGNMENT
    info.extra = struct.pack("<2s", b"FB") + struct.pack("<H", padding) + bytes(padding)
    return target.open(info, "w", force_zip64=True)


def _copy(output: Written, file: IO[bytes]) -> None:
    written = sum(file.write(piece) for piece in output.pieces())
    if written != output.size:
        raise AssertionError(f"{output.name}: {written} bytes for {output.size}")


def _pickle(outputs: Sequence[Written]) -> bytes:
    items = b"".join(_text(output.name) + _tensor(output, key) for key, output in enumerate(outputs))
    return b"\x80\x02}(" + items + b"u."


def _tensor(output: Written, key: int) -> bytes:
    strides = tuple(prod(output.shape[i + 1 :]) for i in range(len(output.shape)))
    storage = b"(" + _text("storage") + b"ctorch\n" + f"{pickled.STORAGES[output.dtype]}Storage\n".encode()
    storage += _text(str(key)) + _text("cpu") + _number(prod(output.shape)) + b"tQ"
    rest = _number(0) + _numbers(output.shape) + _numbers(strides) + b"\x89ccollections\nOrderedDict\n)R"
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + rest + b"tR"


def _text(value: str) -> bytes:
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def _number(value: int) -> bytes:
    return b"\x8a\x08" + struct.pack("<q", value)


def _numbers(values: tuple[int, ...]) -> bytes:
    return b"(" + b"".join(map(_number, values)) + b"t"
