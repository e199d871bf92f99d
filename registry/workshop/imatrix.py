"""Importance matrices: how much each column of a weight matters, as mean squares of what enters it.

Formats: llama.cpp's tools/imatrix/imatrix.cpp, the GGUF form since July 2025 and the binary one before it.
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from ...core.errors import FormatError
from ...core.i18n import _
from ...core.progress import Progress, silent
from .. import header
from ..check import check
from ..convert import publish
from ..kind import Sniffed

if TYPE_CHECKING:
    import gguf
    import numpy as np

CHUNK = 512
"""Tokens that are read at a time, each time from an empty context."""
_LARGEST = 1e20
"""No model computes such mean squares; sums of them overflow in the quantizer, which then ends the process."""
_ENTRIES, _NAME = 1 << 16, 256
"""Bounds of the old form: tensors in a file, bytes of a name."""


@dataclass(frozen=True, slots=True)
class Sums:
    """Of one tensor: sums of squares (matrices, columns) and how many rows were summed (matrices,), both float32.

    There is one matrix, or one for each expert.
    """

    squares: "np.ndarray"
    counts: "np.ndarray"


def compute(
    model: Path, text: str, target: Path, *, threads: int | None = None, progress: Progress = silent, name: str = ""
) -> int:
    """Write the matrix of the GGUF `model` over `text` to `target`, in the GGUF form; give the chunks that were read.

    A chunk is at most 512 tokens, or the model's context; `name` tells people what the text is. Raises FormatError
    for a model that cannot be read, UsageError for a text too short.
    """
    from .activation import collect  # llama.cpp and numpy: only when it is computed

    if check(model).kind != "gguf":
        raise FormatError(
            _("{path} is no GGUF model, so it has no importance matrix.").format(path=model),
            _("Convert it first: vigtui convert {path}").format(path=model),
        )
    sums, chunks, length = collect(model, text, CHUNK, threads, progress)
    write(target, sums, chunks, length, name or "text")
    return chunks


def read(path: Path) -> "dict[str, np.ndarray]":
    """Give tensor name → mean squares, float32 (matrices × columns,), from a file of either form.

    An expert that no token reached has ones. Raises FormatError for a file that is damaged or something else.
    """
    import numpy as np  # only where matrices are read

    found: dict[str, np.ndarray] = {}
    for name, sums in load(path).items():
        counts = sums.counts[:, None]
        means = np.where(counts > 0, sums.squares / np.maximum(counts, 1), 1.0).astype(np.float32)
        if means.max() > _LARGEST:
            raise _damaged(path)
        found[name] = np.ascontiguousarray(means.ravel())
    return found


def load(path: Path) -> dict[str, Sums]:
    """Give tensor name → sums as they stand in the file; the old form counts chunks, the GGUF form tokens."""
    try:
        with path.open("rb") as file:
            found = _gguf(path) if file.read(4) == b"GGUF" else _legacy(file, path)
    except OSError as error:
        raise FormatError(
            _("The importance matrix {path} cannot be read: {reason}.").format(path=path, reason=error.strerror),
            _("Check the path."),
        ) from error
    if not found or not all(map(_sound, found.values())):
        raise _damaged(path)
    return found


def write(target: Path, sums: Mapping[str, Sums], chunks: int, length: int, name: str) -> None:
    """Publish the sums in the GGUF form; `length` is the tokens of a chunk, `name` that of the text."""
    import gguf  # 0.2 s with numpy: only when a file is written

    class Writer(gguf.GGUFWriter):
        def add_architecture(self) -> None:
            """These files name none."""

    with publish.file(target) as temporary:
        writer = Writer(temporary, "")
        try:
            _fill(writer, sums, chunks, length, name)
        finally:
            writer.close()


def _fill(writer: "gguf.GGUFWriter", sums: Mapping[str, Sums], chunks: int, length: int, name: str) -> None:
    writer.add_type("imatrix")
    writer.add_array("imatrix.datasets", [name])
    writer.add_uint32("imatrix.chunk_count", chunks)
    writer.add_uint32("imatrix.chunk_size", length)
    for tensor, one in sorted(sums.items()):
        writer.add_tensor(f"{tensor}.in_sum2", one.squares)
        writer.add_tensor(f"{tensor}.counts", one.counts[:, None])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()


def require_match(matrix: "Mapping[str, np.ndarray]", path: Path, found: Sniffed) -> None:
    """Refuse a matrix that was made from another model. Raises FormatError."""
    tensors = {tensor.name: tensor for part in found.files for tensor in header.read(part).tensors}
    known = {name: values for name, values in matrix.items() if name in tensors}
    wrong = [name for name, values in known.items() if values.size != _columns(tensors[name])]
    if not known or wrong:
        raise FormatError(
            _("The importance matrix {path} was made from another model than {model}.").format(
                path=path, model=found.path
            ),
            _("Let one be computed with --calibration fr, or leave it out."),
        )


def _columns(tensor: header.Tensor) -> int:
    return tensor.shape[0] * (tensor.shape[2] if len(tensor.shape) > 2 else 1)


def _sound(sums: Sums) -> bool:
    import numpy as np

    squares, counts = sums.squares, sums.counts
    return bool(
        squares.size and len(counts) == len(squares)
        and np.isfinite(squares).all() and np.isfinite(counts).all() and squares.min() >= 0 and counts.min() >= 0
    )  # fmt: skip


def _damaged(path: Path) -> FormatError:
    return FormatError(
        _("{path} is no importance matrix, or a damaged one.").format(path=path),
        _("Give a file that llama-imatrix wrote, or let one be computed with --calibration fr."),
    )


def _gguf(path: Path) -> dict[str, Sums]:
    """Read the GGUF form, after its header was checked against the file's length."""
    head = header.read(path)
    strange = head.big_endian or any(tensor.kind for tensor in head.tensors)  # all are F32
    if strange or head.size < max(head.expected, sum(tensor.size for tensor in head.tensors)):
        raise _damaged(path)
    begin = head.expected - max((tensor.offset + tensor.size for tensor in head.tensors), default=0)
    tensors = {tensor.name: tensor for tensor in head.tensors}
    found: dict[str, Sums] = {}
    for name in (name.removesuffix(".in_sum2") for name in tensors if name.endswith(".in_sum2")):
        counts = _values(path, begin, tensors.get(f"{name}.counts"))
        squares = _values(path, begin, tensors[f"{name}.in_sum2"])
        if not counts.size or squares.size % counts.size:
            raise _damaged(path)
        found[name] = Sums(squares.reshape(counts.size, -1), counts)
    return found


def _values(path: Path, begin: int, tensor: header.Tensor | None) -> "np.ndarray":
    import numpy as np

    if tensor is None:
        raise _damaged(path)
    return np.fromfile(path, "<f4", prod(tensor.shape), offset=begin + tensor.offset).astype(np.float32)


def _legacy(file: BinaryIO, path: Path) -> dict[str, Sums]:
    """Read the old form: a count, then for each tensor its name, the chunks, and as many sums as it has columns."""
    file.seek(0)
    return dict(_entry(file, path) for _index in range(_number(file, path, _ENTRIES)))


def _entry(file: BinaryIO, path: Path) -> tuple[str, Sums]:
    import numpy as np

    name = file.read(_number(file, path, _NAME)).decode("utf-8", "replace")
    chunks = _number(file, path, 2**31 - 1)
    width = _number(file, path, (path.stat().st_size - file.tell()) // 4 - 1)  # what follows it is in the file
    values = np.frombuffer(file.read(4 * width), "<f4").astype(np.float32)
    return name, Sums(values[None], np.array([chunks], np.float32))


def _number(file: BinaryIO, path: Path, most: int) -> int:
    data = file.read(4)
    value = struct.unpack("<i", data)[0] if len(data) == 4 else 0
    if not 1 <= value <= most:
        raise _damaged(path)
    return value
