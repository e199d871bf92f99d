"""What a merge does to one tensor of the base, in float32 and a few rows at a time.

As LoraLayer.merge of peft/tuners/lora: W + scale·B·A, and for DoRA magnitude / norm(W + scale·B·A) times that, the norm
over each output of the module. A module that stores its weight as (in, out) is changed by the transpose.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import TYPE_CHECKING

from ...backends import threads
from ...core.errors import FormatError
from ...core.i18n import _
from ..convert import safetensors
from ..convert.safetensors import ITEM, Tensor

if TYPE_CHECKING:
    import numpy as np

LARGEST = {"F32": 3.4028234663852886e38, "F16": 65519.99609375, "BF16": 3.396177326406364e38}
"""The dtypes of a base that can be merged into, and what still rounds to a number of theirs."""
_PIECE = 1 << 20  # bytes of the base: with the float32 beside it, what a core's cache holds
_COPY = 8 << 20
_MOST_THREADS = 8


@dataclass(frozen=True, slots=True)
class Product:
    """The factors that are added with their scale: A (r, in), B (out, r); `magnitude` (out,) rescales the sum."""

    a: Tensor
    b: Tensor
    scale: float
    transposed: bool = False
    magnitude: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Change:
    """A tensor and what is done to it, in this order: products, vectors times their scale, rows that are replaced."""

    source: Tensor
    products: tuple[Product, ...] = ()
    vectors: tuple[tuple[Tensor, float], ...] = ()
    rows: tuple[tuple[tuple[int, ...], Tensor], ...] = ()

    @property
    def nothing(self) -> bool:
        """Whether the source stays as it is."""
        return not (self.products or self.vectors or self.rows)

    @property
    def memory(self) -> int:
        """Bytes of the factors, which lie in memory while the tensor is written."""
        loaded = [tensor for product in self.products for tensor in (product.a, product.b)]
        loaded += [tensor for _ids, tensor in self.rows]
        return 4 * sum(prod(tensor.shape) for tensor in loaded)


def pieces(change: Change, dtype: str) -> Iterator[bytes]:
    """Yield the changed tensor in `dtype`, rounded to the nearest, ties to even.

    Raises FormatError for a value that is not finite or too large for `dtype`.
    """
    if change.nothing and change.source.dtype == dtype:
        yield from _copied(change.source)
        return
    source = change.source
    count = source.shape[0] if source.shape else 1
    step = max(1, _PIECE // max(1, prod(source.shape[1:]) * ITEM[source.dtype]))
    ranges = [(start, min(start + step, count)) for start in range(0, count, step)]
    work = _Work(change, ranges)

    def merged(span: tuple[int, int]) -> bytes:
        import numpy as np  # 80 ms: only when weights are merged

        with np.errstate(all="ignore"):  # what is not finite is refused below
            return _encoded(work.rows(*span), dtype, source)

    yield from _in_order(merged, ranges)


def _copied(source: Tensor) -> Iterator[bytes]:
    with source.path.open("rb") as file:
        file.seek(source.begin)
        left = source.end - source.begin
        while left > 0 and (data := file.read(min(left, _COPY))):
            left -= len(data)
            yield data


def _in_order(work: "Callable[[tuple[int, int]], bytes]", spans: Sequence[tuple[int, int]]) -> Iterator[bytes]:
    """Yield the results in order, worked on by as many threads as there are free cores, few of them ahead."""
    workers = min(_MOST_THREADS, threads.physical_cores())
    if len(spans) == 1 or workers == 1:
        yield from map(work, spans)
        return
    waiting: deque[Future[bytes]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        for span in spans:
            waiting.append(pool.submit(work, span))
            if len(waiting) > 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


class _Work:
    """The factors of a change in memory, to be applied to any rows."""

    def __init__(self, change: Change, spans: Sequence[tuple[int, int]]) -> None:
        self.source = change.source
        self.factors = [_Factors(product) for product in change.products]
        self.vectors = [(safetensors.read(tensor), scale) for tensor, scale in change.vectors]
        self.replaced = [(ids, safetensors.read(tensor)) for ids, tensor in change.rows]
        for factors in self.factors:
            if factors.magnitude is not None and factors.transposed:
                factors.measure(partial(safetensors.part, self.source), spans)

    def rows(self, start: int, stop: int) -> "np.ndarray":
        """Give rows `start` to `stop` as they will be."""
        base = safetensors.part(self.source, start, stop)
        value = base
        for factors in self.factors:
            value = factors.apply(base, value, start, stop)
        for vector, scale in self.vectors:
            value = value + vector[start:stop] * vector.dtype.type(scale)
        for ids, tensor in self.replaced:
            inside = [(id - start, at) for at, id in enumerate(ids) if start <= id < stop]
            for row, at in inside:
                value[row] = tensor[at]
        return value


class _Factors:
    """One product in the orientation of the stored weight: left (rows, r), right (r, columns)."""

    def __init__(self, product: Product) -> None:
        import numpy as np  # 80 ms: only when weights are merged

        a, b = safetensors.read(product.a), safetensors.read(product.b)
        self.transposed = product.transposed
        left, right = (a.T, b.T) if product.transposed else (b, a)
        self.left, self.right = np.ascontiguousarray(left), np.ascontiguousarray(right)
        self.scale = np.float32(product.scale)
        self.magnitude = None if product.magnitude is None else safetensors.read(product.magnitude).reshape(-1)
        self.norms: np.ndarray | None = None

    def delta(self, start: int, stop: int) -> "np.ndarray":
        """Give what is added to rows `start` to `stop`."""
        product = _multiplied(self.left[start:stop], self.right)
        product *= self.scale
        return product

    def measure(self, base: "Callable[[int, int], np.ndarray]", spans: Sequence[tuple[int, int]]) -> None:
        """Find the norm of every column, which takes all rows."""
        import numpy as np

        squares = np.zeros(self.right.shape[1])
        for span in spans:
            changed = base(*span) + self.delta(*span)
            squares += np.einsum("ij,ij->j", changed, changed, dtype=np.float64)
        self.norms = np.sqrt(squares).astype(np.float32)

    def apply(self, base: "np.ndarray", value: "np.ndarray", start: int, stop: int) -> "np.ndarray":
        """Give `value` with this product merged; the norms are those of `base`, whatever else was merged before."""
        import numpy as np

        delta = self.delta(start, stop)
        if self.magnitude is None:
            delta += value
            return delta
        if self.norms is not None:
            factor = (self.magnitude / self.norms)[None, :]
        else:
            changed = base + delta
            norms = np.sqrt(np.einsum("ij,ij->i", changed, changed, dtype=np.float64)).astype(np.float32)
            factor = (self.magnitude[start:stop] / norms)[:, None]
        return factor * (value + delta)


def _multiplied(left: "np.ndarray", right: "np.ndarray") -> "np.ndarray":
    """Give left @ right, in blocks that OpenBLAS does not spread over threads of its own (M·N·K up to 2^18).

    Those would wait for each other and for ours: eight times as slow on a busy machine. Alone a block is as fast.
    """
    import numpy as np

    rows, columns = 32, max(8, (1 << 18) // (32 * left.shape[1]))
    product = np.empty((left.shape[0], right.shape[1]), np.float32)
    for i in range(0, left.shape[0], rows):
        for j in range(0, right.shape[1], columns):
            block = product[i : i + rows, j : j + columns]
            np.matmul(left[i : i + rows], right[:, j : j + columns], out=block)
    return product


def _encoded(value: "np.ndarray", dtype: str, source: Tensor) -> bytes:
    import numpy as np

    if not max(value.max(initial=0.0), -value.min(initial=0.0)) <= LARGEST[dtype]:  # false for NaN too
        raise FormatError(
            _("{name} would hold a value that {kind} cannot hold.").format(name=source.name, kind=dtype),
            _("The adapter is broken, or belongs to another base model; a smaller --scale may help."),
        )
    if dtype == "BF16":  # the upper half of a float32
        bits = np.ascontiguousarray(value, np.float32).view(np.uint32)
        rounded = (bits >> 16) & 1
        rounded += bits
        rounded += 0x7FFF
        rounded >>= 16
        return rounded.astype("<u2").tobytes()
    return value.astype({"F16": "<f2", "F32": "<f4"}[dtype]).tobytes()
