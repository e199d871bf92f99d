"""Where a PyTorch model is put and in which numbers: chosen here, told in ModelInfo."""

import gc
import importlib.util
from typing import TYPE_CHECKING, Any

from ..core.errors import BackendError, UsageError
from ..core.i18n import _

if TYPE_CHECKING:
    import torch

DTYPES = {
    "f32": "float32", "fp32": "float32", "float32": "float32", "float": "float32",
    "f16": "float16", "fp16": "float16", "float16": "float16", "half": "float16",
    "bf16": "bfloat16", "bfloat16": "bfloat16",
}  # fmt: skip
"""What people write → the name in PyTorch."""
SMALL = 4 << 30
"""Bytes of 16-bit weights below which a CPU computes in float32, which takes twice the memory and is faster."""
_SHORT = ("out of memory", "can't allocate memory", "not enough memory", "cannot allocate memory", "alloc_cpu")


def missing(extra: str, *modules: str) -> str | None:
    """Say which of `modules` is not installed, and the command that installs vigtui's `extra`; None when all are."""
    lacking = ", ".join(name for name in modules if importlib.util.find_spec(name) is None)
    text = _("Not installed: {names}. Run `pip install 'vigtui[{extra}]'`.")
    return text.format(names=lacking, extra=extra) if lacking else None


def device(wanted: str | None) -> "torch.device":
    """Give the device: that which is `wanted`, else a GPU, else the CPU. Raises UsageError when there is none such."""
    import torch

    if wanted in (None, "auto"):
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        return torch.device(name)
    try:
        found = torch.device("cuda" if wanted == "gpu" else wanted)
    except RuntimeError as error:
        raise UsageError(
            _("There is no device {name}.").format(name=wanted), _("Choose cpu, cuda, cuda:1 or mps.")
        ) from error
    there = {
        "cpu": 1,
        "cuda": torch.cuda.device_count() if torch.cuda.is_available() else 0,
        "mps": int(torch.backends.mps.is_available()),
    }
    if (found.index or 0) >= there.get(found.type, 0):
        raise UsageError(
            _("PyTorch sees no device {name} here.").format(name=wanted),
            _("Use `--device cpu`, or install a PyTorch build for your GPU."),
        )
    return found


def spread(wanted: str | None, chosen: "torch.device") -> Any:
    """Give the device_map of a load: over all GPUs where there are several and none was named."""
    import torch

    if chosen.type == "cuda" and wanted in (None, "auto", "cuda", "gpu") and torch.cuda.device_count() > 1:
        return "auto"
    return None if chosen.type == "cpu" else {"": chosen}


def dtype(wanted: str | None, stored: "torch.dtype | None", chosen: "torch.device", size: int) -> "torch.dtype":
    """Give the type to compute in, for weights of type `stored` and `size` bytes on `chosen`. Raises UsageError."""
    import torch

    if wanted not in (None, "auto"):
        if wanted not in DTYPES:
            raise UsageError(_("There is no dtype {name}.").format(name=wanted), _("Choose f32, f16 or bf16."))
        return getattr(torch, DTYPES[wanted])
    if chosen.type == "cpu":
        return getattr(torch, cpu_dtype(stored in (torch.float16, torch.bfloat16), size))
    if chosen.type == "mps" or not torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.float16
    return torch.float16 if stored == torch.float16 else torch.bfloat16


def cpu_dtype(half: bool, size: int) -> str:
    """Give the name of the type in which a CPU computes with `size` bytes of weights, of 16 bits each when `half`."""
    return "bfloat16" if half and size >= SMALL else "float32"


def short_of_memory(error: BaseException) -> bool:
    """Whether `error` says that memory ran out: on a GPU, on the CPU, or in Python itself."""
    import torch

    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in _SHORT)


def release() -> None:
    """Give unused memory back to the system and the GPU."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def out_of_memory() -> BackendError:
    """Give the error that says what to lower."""
    return BackendError(
        _("The memory ran out while the answer was written; what was written is kept."),
        _("Lower `--ctx`, `--num-beams` or `--max-tokens`, load with `--load-in 4bit`, or choose a smaller model."),
    )
