"""A weight read piece by piece, in its own type and in the order of rows that GGUF wants, through one buffer."""

from collections.abc import Iterator
from math import prod
from typing import TYPE_CHECKING, BinaryIO

from ...core.errors import FormatError
from ...core.i18n import _
from ..header import CutShort
from .layout import Place, permute
from .safetensors import FLOATS, Tensor

if TYPE_CHECKING:
    import numpy as np

LIMIT = 4 << 20
"""Bytes of the file that a piece takes, one row or one head at least."""


def pieces(tensor: Tensor, place: Place, head_dim: int) -> "Iterator[np.ndarray]":
    """Yield `tensor` along the first axis as float16, float32, float64, or uint16 holding bfloat16.

    A piece is only valid until the next one is asked for. Raises FormatError for another dtype and for a file that
    ends early.
    """
    import numpy as np  # 80 ms: only when weights are read

    if tensor.dtype not in FLOATS:
        raise FormatError(
            _("{path} stores {name} as {dtype}, which cannot be converted.").format(
                path=tensor.path, name=tensor.name, dtype=tensor.dtype
            ),
            _("Start from weights in F32, F16 or BF16."),
        )
    kind = np.dtype({"BF16": "<u2", "F16": "<f2", "F32": "<f4", "F64": "<f8"}[tensor.dtype])
    width = prod(tensor.shape[1:])
    whole = head_dim if place.heads else 1
    step = max(1, LIMIT // max(1, width * kind.itemsize * whole)) * whole
    rows = tensor.shape[0] if tensor.shape else 1
    buffer = np.empty(min(step, rows) * width, kind)
    with tensor.path.open("rb", buffering=0) as file:
        for first, count in _steps(place, rows, step):
            found = buffer[: count * width]
            _fill(file, tensor, tensor.begin + first * width * kind.itemsize, found.data.cast("B"))
            shaped = found.reshape(count, *tensor.shape[1:])
            yield permute(shaped, head_dim) if place.heads else shaped


def _steps(place: Place, rows: int, step: int) -> Iterator[tuple[int, int]]:
    """Yield (first row, rows) of at most `step` rows, in the order of GGUF."""
    for first, count in place.fused.ranges() if place.fused else ((0, rows),):
        for start in range(first, first + count, step):
            yield start, min(step, first + count - start)


def _fill(file: BinaryIO, tensor: Tensor, at: int, view: memoryview) -> None:
    file.seek(at)
    while view:
        got = file.readinto(view)  # pyright: ignore[reportAttributeAccessIssue]
        if not got:
            raise CutShort(tensor.path, tensor.path.stat().st_size, tensor.end)
        view = view[got:]
