"""Tensors that lie in parts, one for each GPU of a training: joined to one, or cut into parts, block by block.

Nothing is computed: elements move as integers of their width, so that bfloat16 needs no conversion.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

from ..header import CutShort
from .safetensors import ITEM, Tensor

if TYPE_CHECKING:
    import numpy as np

LIMIT = 16 << 20
"""Bytes of a block of rows, about."""
Change = Callable[["np.ndarray"], "np.ndarray"]


@dataclass(frozen=True, slots=True)
class Joined:
    """Parts of one tensor, one behind the other along `axis`, all of one dtype."""

    parts: tuple[Tensor, ...]
    axis: int = 0

    @property
    def dtype(self) -> str:
        """The type of the elements, as in safetensors."""
        return self.parts[0].dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the whole."""
        shape = list(self.parts[0].shape)
        shape[self.axis] = sum(part.shape[self.axis] for part in self.parts)
        return tuple(shape)

    def rows(self, start: int, stop: int) -> "np.ndarray":
        """Give rows of the whole, (stop - start, width), as unsigned integers of the element's width."""
        import numpy as np  # 80 ms: only when weights are read

        if self.axis:
            return np.concatenate([_rows(part, start, stop) for part in self.parts], axis=1)
        found, first = [], 0
        for part in self.parts:
            last = first + part.shape[0]
            if start < last and first < stop:
                found.append(_rows(part, max(start, first) - first, min(stop, last) - first))
            first = last
        return np.concatenate(found) if len(found) > 1 else found[0]


def blocks(
    source: Joined, start: int, stop: int, columns: slice = slice(None), group: int = 1, change: Change | None = None
) -> Iterator[bytes]:
    """Yield the bytes of `columns` of the rows from `start` to `stop`, after `change` of whole groups of rows."""
    width = prod(source.shape[1:]) * ITEM[source.dtype]
    step = max(1, LIMIT // max(1, width * group)) * group
    for first in range(start, stop, step):
        rows = source.rows(first, min(first + step, stop))
        yield (change(rows) if change else rows)[:, columns].tobytes()


def _rows(tensor: Tensor, start: int, stop: int) -> "np.ndarray":
    import numpy as np

    width, item = prod(tensor.shape[1:]), ITEM[tensor.dtype]
    with tensor.path.open("rb") as file:
        file.seek(tensor.begin + start * width * item)
        data = file.read((stop - start) * width * item)
    if len(data) < (stop - start) * width * item:
        raise CutShort(tensor.path, tensor.path.stat().st_size, tensor.end)
    return np.frombuffer(data, f"<u{item}").reshape(stop - start, width)
