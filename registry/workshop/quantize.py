"""GGUF → GGUF of another type, by llama.cpp's own quantizer in this process.

Traps of the library that this file goes around (measured on llama-cpp-python 0.3.36): a target equal to the source
destroys it, an existing target is overwritten even by a call that fails, quantized weights are copied whatever the
flags say, and nothing stops a call but the end of the process.
"""

import ctypes
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...backends import llama_native
from ...backends import threads as cores
from ...core.errors import CapacityError, FormatError, UsageError
from ...core.i18n import _
from ...core.progress import Progress, silent
from .. import header, plan
from ..check import check
from ..convert import publish
from ..kind import Sniffed
from ..sniff import sniff
from . import imatrix as importance
from .ftype import TYPES, named

if TYPE_CHECKING:
    import numpy as np

_PLAIN = frozenset({"F32", "F16", "BF16"})
_BUFFER = 128 << 20
"""Bytes of rows that the library holds at once; its own default is 8 GiB, and no faster."""
_TENSOR = re.compile(r"\[ *(\d+)/ *(\d+)\] (\S+) ")
_BECOMES = re.compile(r"size = .*-> .*\((\w+)\)")
_ALIGNMENT = 32
_TOKEN = 24
"""Bytes of a vocabulary's entry: text, score and kind."""


@dataclass(frozen=True, slots=True)
class Quantized:
    """What was done: `fallbacks` of `tensors` took a larger type because their rows are too short for its blocks."""

    fallbacks: int
    tensors: int
    notices: tuple[str, ...]


def quantize(
    source: Path,
    target: Path,
    type: str,
    *,
    threads: int | None = None,
    leave_output_tensor: bool = False,
    pure: bool = False,
    imatrix: Path | None = None,
    allow_requantize: bool = False,
    progress: Progress = silent,
) -> Quantized:
    """Write the GGUF model `source` as `type` to `target`, published when it is whole; `progress` counts tensors.

    `threads` None takes the physical cores that are free to use; `leave_output_tensor` and `pure` as in llama.cpp;
    `imatrix` is a file of either format. Nothing but the end of the process stops it. Raises UsageError for what
    cannot be meant, FormatError for a source or matrix that is not fit, CapacityError when the disk is full.
    """
    name = named(type)
    found = ready(source, allow_requantize=allow_requantize)
    _require_other(found, target)
    matrix = None
    if imatrix is None:
        require_matrix(name)
    else:
        matrix = importance.read(imatrix)
        importance.require_match(matrix, imatrix, found)
    settings = _settings(name, threads, leave_output_tensor, pure)
    with publish.file(target) as temporary:
        heard = _run(found.files[0], temporary, settings, matrix, progress)
    return Quantized(heard.fallbacks, heard.tensors, tuple(_notices(heard, name, found, leave_output_tensor)))


def ready(source: Path, *, allow_requantize: bool = False) -> Sniffed:
    """Give what `source` is when it can be quantized. Raises NotFoundError, FormatError or UsageError."""
    found = check(source)
    if found.kind != "gguf" or not found.header:
        raise FormatError(
            _("{path} is no GGUF model, so llama.cpp cannot quantize it.").format(path=source),
            _("Convert it first: vigtui convert {path}").format(path=source),
        )
    kind = next((kind for kind in _kinds(found) if kind not in _PLAIN), None)
    if kind and not allow_requantize:
        raise UsageError(
            _("{path} is quantized already ({type}); doing it twice loses more.").format(
                path=source, type=found.quantization or kind
            ),
            _("Start from its F16 or F32 form, or insist with --allow-requantize."),
        )
    return found


def require_matrix(type: str) -> None:
    """Refuse `type` without an importance matrix where it would give garbage. Raises UsageError."""
    name = named(type)
    if TYPES[name].needs_matrix:
        raise UsageError(
            _("{type} has so few bits that it needs an importance matrix.").format(type=name),
            _("Let one be computed with --calibration fr (or en, mixed, FILE), or give one with --imatrix FILE."),
        )


def size(source: Path, type: str, *, leave_output_tensor: bool = False, pure: bool = False) -> int:
    """Give the bytes that `source` will have as `type`: to the byte for a GGUF, roughly for a Hugging Face folder."""
    name = named(type)
    if (found := sniff(source)).kind != "gguf":
        return _guess(found, TYPES[name].bits)
    found = ready(source, allow_requantize=True)
    matrix: Mapping[str, Any] | None = {} if TYPES[name].needs_matrix else None  # which changes the types a little
    settings = _settings(name, 1, leave_output_tensor, pure)
    settings.dry_run = True
    heard = _run(found.files[0], Path(os.devnull), settings, matrix, silent)
    weights = _tensors(found)
    after = sum(_padded(_width(tensor, heard.types.get(tensor.name))) for tensor in weights)
    return found.size - sum(_padded(tensor.size) for tensor in weights) + after


def _guess(found: Sniffed, bits: float) -> int:
    """Count with what a Llama takes; the output, a larger share of a small model, has at least the bits of Q6_K."""
    shape = plan.from_config(found.config or {})
    tokens, width = (shape.vocabulary, shape.embedding) if shape else (0, 0)
    output = tokens * width * max(0.0, TYPES["Q6_K"].bits - bits)
    return round(((found.parameters or found.size // 2) * bits + output) / 8) + tokens * _TOKEN


def _tensors(found: Sniffed) -> list[header.Tensor]:
    return [tensor for part in found.files for tensor in header.read(part).tensors]


def _kinds(found: Sniffed) -> list[str]:
    return [header.TYPES.get(tensor.kind, ("?",))[0] for tensor in _tensors(found)]


def _width(tensor: header.Tensor, kind: str | None) -> int:
    block, width = next(((b, w) for n, b, w in header.TYPES.values() if n == (kind or "").upper()), (0, 0))
    return prod(tensor.shape) // block * width if block else tensor.size


def _padded(count: int) -> int:
    return -(-count // _ALIGNMENT) * _ALIGNMENT


def _require_other(found: Sniffed, target: Path) -> None:
    """Refuse to write over a file of the source, under whatever name it goes."""
    for part in found.files:
        if part.resolve() == target.resolve() or (target.exists() and part.samefile(target)):
            raise UsageError(
                _("{path} is the source itself; it would be destroyed.").format(path=target),
                _("Choose another name for the product."),
            )


def _settings(name: str, threads: int | None, leave_output_tensor: bool, pure: bool) -> Any:
    settings = llama_native.bindings().llama_model_quantize_default_params()
    settings.ftype = TYPES[name].number
    settings.nthread = threads or cores.physical_cores()
    settings.quantize_output_tensor = not leave_output_tensor
    settings.pure = pure
    settings.allow_requantize = True  # `ready` has decided
    settings.max_buf_size = _BUFFER
    return settings


@dataclass
class _Heard:
    """What the library's log tells of one call; `types` of a trial, by tensor's name."""

    progress: Progress
    tensors: int = 0
    fallbacks: int = 0
    reason: str = ""
    types: dict[str, str] = field(default_factory=dict)
    error: BaseException | None = None
    _name: str = ""

    def __call__(self, level: int, text: str) -> None:
        if level >= llama_native.ERROR and "failed to quantize: " in text:
            self.reason = text.partition("failed to quantize: ")[2].strip().rstrip(".")
        self.fallbacks += "-> falling back to" in text
        if match := _BECOMES.match(text):
            self.types[self._name] = match[1]
        if match := _TENSOR.match(text):
            self.tensors, self._name = int(match[2]), match[3]
            self._tell(int(match[1]) - 1)

    def _tell(self, done: int) -> None:
        try:
            self.progress(_("quantize"), done, self.tensors)
        except BaseException as error:  # it would be lost in the C code that called
            self.error = self.error or error

    def finish(self) -> None:
        """Report the whole. Raises what `progress` raised on the way."""
        self._tell(self.tensors)
        if self.error:
            raise self.error


def _run(
    source: Path, target: Path, settings: Any, matrix: "Mapping[str, np.ndarray] | None", progress: Progress
) -> _Heard:
    """Call the library; `matrix` holds mean squares by tensor, None is no matrix at all."""
    native = llama_native.bindings()
    heard = _Heard(progress)
    entries = _entries(native, matrix) if matrix is not None else None
    if entries is not None:
        settings.imatrix = ctypes.cast(entries, ctypes.POINTER(native.llama_model_imatrix_data))
    with llama_native.listening(heard):
        code = native.llama_model_quantize(os.fsencode(source), os.fsencode(target), ctypes.byref(settings))
    if code:
        raise _failure(source, target, heard.reason or _("no reason given"))
    heard.finish()
    return heard


def _entries(native: Any, matrix: "Mapping[str, np.ndarray]") -> Any:
    """Give the matrix as the library wants it: an array that an empty entry closes; it borrows the values."""
    entry = native.llama_model_imatrix_data
    pointer = ctypes.POINTER(ctypes.c_float)
    found = [
        entry(name=name.encode(), data=values.ctypes.data_as(pointer), size=values.size)
        for name, values in matrix.items()
    ]
    return (entry * (len(found) + 1))(*found)


def _failure(source: Path, target: Path, reason: str) -> Exception:
    if "iostream" in reason:
        return CapacityError(
            _("{path} could not be written: the disk is full, or its folder does not allow it.").format(path=target),
            _("Free some space, or choose another folder."),
        )
    return FormatError(
        _("llama.cpp cannot quantize {path}: {reason}.").format(path=source, reason=reason),
        _("`vigtui show {path}` tells what the file is.").format(path=source),
    )


def _notices(heard: _Heard, name: str, found: Sniffed, leave_output_tensor: bool) -> list[str]:
    notices: list[str] = []
    if heard.fallbacks:
        text = _("{count} of {tensors} tensors have rows too short for {type}; they took a larger type.")
        notices.append(text.format(count=heard.fallbacks, tensors=heard.tensors, type=name))
    if name == "MXFP4_MOE" and all("_exps." not in tensor.name for tensor in _tensors(found)):
        notices.append(_("The model has no experts, for which MXFP4 is meant: its weights became Q8_0."))
    if leave_output_tensor and all(tensor.name != "output.weight" for tensor in _tensors(found)):
        notices.append(_("The model has no output tensor of its own: --leave-output-tensor changed nothing."))
    return notices
