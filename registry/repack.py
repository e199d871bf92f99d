"""Which weights llama.cpp copies into another layout while it loads them, for the processor it runs on.

Source: `ggml_repack_get_optimal_repack_type` in ggml/src/ggml-cpu/repack.cpp; x86 only, where the flags can be read.
"""

import platform
from functools import cache
from pathlib import Path

from .header import TYPES, Header

_X86 = {"avx2": ("Q4_0", "Q4_K", "IQ4_NL", "MXFP4"), "avx512f": ("Q2_K",)}


def repacked(head: Header) -> int:
    """Give the bytes of the copies; 0 where the processor is not known."""
    kinds = _kinds()
    weights = (tensor for tensor in head.tensors if tensor.name not in ("token_embd.weight", "rope_freqs.weight"))
    return sum(
        tensor.size
        for tensor in weights
        if TYPES.get(tensor.kind, ("",))[0] in kinds and len(tensor.shape) == 2 and tensor.shape[1] % 8 == 0
    )


@cache
def _kinds() -> frozenset[str]:
    if platform.machine() not in ("x86_64", "AMD64"):
        return frozenset()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return frozenset()
    flags = next((line for line in lines if line.startswith("flags")), "").split()
    return frozenset(kind for flag, kinds in _X86.items() if flag in flags for kind in kinds)
