"""What enters each weight of a GGUF model while it reads a text, seen through llama.cpp's evaluation callback."""

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...backends.base import LoadOptions, ModelFiles, Prompt
from ...backends.llama_cpp import LlamaCppBackend
from ...core.errors import BackendError, FormatError, UsageError
from ...core.i18n import _
from ...core.progress import Progress
from .imatrix import Sums
from .passage import windows

if TYPE_CHECKING:
    import numpy as np

_FEWEST = 16
"""Rows below which a matrix product is not counted, as in llama-imatrix, and tokens that a text must have."""
_HEADER = 32
"""Bytes of ggml_object, which ggml_tensor_overhead counts too."""
_F32 = 0


class _Tensor(ctypes.Structure):
    """struct ggml_tensor of ggml.h: `ne` counts elements, `nb` bytes between them, both for four dimensions."""


_Tensor._fields_ = [
    ("type", ctypes.c_int), ("buffer", ctypes.c_void_p), ("ne", ctypes.c_int64 * 4), ("nb", ctypes.c_size_t * 4),
    ("op", ctypes.c_int), ("op_params", ctypes.c_int32 * 16), ("flags", ctypes.c_int32),
    ("src", ctypes.POINTER(_Tensor) * 10), ("view_src", ctypes.c_void_p), ("view_offs", ctypes.c_size_t),
    ("data", ctypes.c_void_p), ("name", ctypes.c_char * 64), ("extra", ctypes.c_void_p),
    ("padding", ctypes.c_char * 8),
]  # fmt: skip


def collect(
    model: Path, text: str, length: int, threads: int | None, progress: Progress
) -> tuple[dict[str, Sums], int, int]:
    """Read `text` in chunks of at most `length` tokens; give the sums by tensor, the chunks and their length.

    A text longer than a chunk is cut to whole ones. Raises UsageError when it has fewer than 16 tokens.
    """
    observer = _Observer()
    engine = _Observed(observer)
    try:
        info = engine.load(ModelFiles(model.name, "gguf", model), LoadOptions(length + 1, threads), progress)
        length = min(length, info.trained_context or length)
        chunks = _chunks(engine.tokenize(Prompt(((text, False),))), length, info.adds_bos)
        for done, chunk in enumerate(chunks):
            progress(_("importance matrix"), done, len(chunks))
            for _logits in engine.score(chunk):  # of every position: the last layer skips those nobody asked for
                observer.check()
        progress(_("importance matrix"), len(chunks), len(chunks))
    finally:
        engine.close()
    return observer.sums(), len(chunks), length


def _chunks(ids: list[int], length: int, adds_bos: bool) -> list[list[int]]:
    """Cut the ids into chunks of `length`, each with BOS in front where the model wants one."""
    if len(ids) < _FEWEST:
        raise UsageError(
            _("The text for the importance matrix has only {count} tokens.").format(count=len(ids)),
            _("Give a longer one, some pages at least."),
        )
    chunks = windows(ids, length, adds_bos)
    return [chunk for chunk in chunks if len(chunk) == length] or chunks


class _Observed(LlamaCppBackend):
    """A backend that shows every matrix product to an observer."""

    def __init__(self, observer: "_Observer") -> None:
        super().__init__()
        self._observer = observer

    def _tune(self, params: Any) -> None:
        self._observer.attach(self._native)
        self._callback = self._native.ggml_backend_sched_eval_callback(self._observer)
        params.cb_eval = self._callback


@dataclass
class _Observer:
    """Sums the squares of what enters each weight; called with a tensor's address before and after it is computed."""

    squares: "dict[str, np.ndarray]" = field(default_factory=dict)
    counts: "dict[str, np.ndarray]" = field(default_factory=dict)
    error: BaseException | None = None

    def attach(self, native: Any) -> None:
        """Look up what the callback needs. Raises BackendError when the library's tensors are laid out otherwise."""
        library = self._library = native._lib
        library.ggml_op_name.restype = ctypes.c_char_p
        library.ggml_tensor_overhead.restype = library.ggml_nbytes.restype = ctypes.c_size_t
        library.ggml_nbytes.argtypes = [ctypes.c_void_p]
        library.ggml_backend_tensor_get.argtypes = [ctypes.c_void_p] * 2 + [ctypes.c_size_t] * 2
        library.ggml_backend_tensor_get.restype = None
        operations = {library.ggml_op_name(number): number for number in range(64)}
        if library.ggml_tensor_overhead() != ctypes.sizeof(_Tensor) + _HEADER or b"MUL_MAT" not in operations:
            raise BackendError(
                _("This build of llama.cpp cannot be looked into, so no importance matrix can be computed."),
                _("Give one with --imatrix FILE, or install llama-cpp-python 0.3.36."),
            )
        self._product, self._experts = operations[b"MUL_MAT"], operations[b"MUL_MAT_ID"]

    def __call__(self, address: int, asked: bool, _data: object) -> bool:
        if self.error:
            return not asked
        try:
            tensor = _Tensor.from_address(address)
            return self._wanted(tensor) if asked else self._take(tensor)
        except BaseException as error:  # it would be lost in the C code that called
            self.error = error
            return not asked

    def check(self) -> None:
        """Raise what went wrong inside the library's call."""
        if self.error:
            raise self.error

    def _wanted(self, tensor: _Tensor) -> bool:
        if tensor.op not in (self._product, self._experts):
            return False
        weight, entering = tensor.src[0].contents, tensor.src[1].contents
        if not weight_name(weight.name).startswith("blk.") or entering.type != _F32:
            return False
        return tensor.op == self._experts or entering.ne[1] >= _FEWEST

    def _take(self, tensor: _Tensor) -> bool:
        weight = tensor.src[0].contents
        name, rows = weight_name(weight.name), self._array(tensor.src[1], "f4")
        if tensor.op == self._experts:
            self._add_experts(name, weight.ne[2], rows, self._array(tensor.src[2], "i4"))
        else:
            self._add(name, rows)
        return True

    def _array(self, pointer: Any, dtype: str) -> "np.ndarray":
        """Copy a tensor of four-byte elements from wherever it lies: (ne3, ne2, ne1, ne0)."""
        import numpy as np  # only for measurements

        tensor = pointer.contents
        data = np.empty(self._library.ggml_nbytes(pointer), np.uint8)
        self._library.ggml_backend_tensor_get(pointer, data.ctypes.data, 0, data.nbytes)
        return np.ndarray(tuple(tensor.ne)[::-1], dtype, data, 0, tuple(tensor.nb)[::-1])

    def _add(self, name: str, rows: "np.ndarray") -> None:
        """Sum over all rows of an ordinary weight."""
        import numpy as np

        rows = rows.reshape(-1, rows.shape[-1])
        self._grow(name, np.einsum("rc,rc->c", rows, rows)[None], [len(rows)])

    def _add_experts(self, name: str, experts: int, rows: "np.ndarray", chosen: "np.ndarray") -> None:
        """Sum for each expert over the rows that went to it: `chosen` has k ids for each of the tokens."""
        import numpy as np

        rows, ids = rows[0], chosen[0, 0]  # (tokens, 1 or k, columns), (tokens, k)
        rows = np.broadcast_to(rows, (*ids.shape, rows.shape[-1]))
        squares = np.zeros((experts, rows.shape[-1]), np.float32)
        np.add.at(squares, ids, rows * rows)
        self._grow(name, squares, np.bincount(ids.ravel(), minlength=experts))

    def _grow(self, name: str, squares: "np.ndarray", counts: "Sequence[int] | np.ndarray") -> None:
        import numpy as np

        if not np.isfinite(squares).all():
            raise FormatError(
                _("The model computes values in {name} that are no numbers.").format(name=name),
                _("Its weights are damaged, or too large for this type: fetch or convert it again."),
            )
        self.squares[name] = self.squares.get(name, 0.0) + squares.astype(np.float64)
        self.counts[name] = self.counts.get(name, 0) + np.asarray(counts, np.float64)

    def sums(self) -> dict[str, Sums]:
        """Give the sums of all that was seen."""
        import numpy as np

        self.check()
        return {
            name: Sums(squares.astype(np.float32), self.counts[name].astype(np.float32))
            for name, squares in self.squares.items()
        }


def weight_name(raw: bytes) -> str:
    """Give a weight's name without what the scheduler adds: CUDA0#blk.0.attn_k.weight#0 is blk.0.attn_k.weight."""
    parts = raw.decode("utf-8", "replace").split("#")
    return parts[1] if len(parts) > 1 else parts[0]
