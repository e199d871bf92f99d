"""Rotary positions: how a config.json stretches them, and how llama.cpp is told."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import log, pi
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ....core.i18n import _
from ..layout import count, number
from . import unsupported

if TYPE_CHECKING:
    import gguf
    import numpy as np


@dataclass(frozen=True, slots=True)
class Rope:
    """Base frequency and scaling; `kind` is default, linear, yarn, llama3 or dynamic. See modeling_rope_utils.py of
    transformers for what the other numbers mean."""

    theta: float
    kind: str
    factor: float = 1.0
    original: int = 0
    attention: float = 1.0
    fast: float = 32.0
    slow: float = 1.0
    low: float = 1.0
    high: float = 4.0

    def describe(self, out: "gguf.GGUFWriter") -> None:
        """Add the keys; llama3 is a tensor instead."""
        import gguf  # 0.2 s with numpy: only when a file is written

        out.add_rope_freq_base(self.theta)
        if self.kind == "linear" and self.factor != 1.0:
            out.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
            out.add_rope_scaling_factor(self.factor)
        elif self.kind == "yarn":
            out.add_rope_scaling_type(gguf.RopeScalingType.YARN)
            out.add_rope_scaling_factor(self.factor)
            out.add_rope_scaling_orig_ctx_len(self.original)
            out.add_rope_scaling_yarn_beta_fast(self.fast)
            out.add_rope_scaling_yarn_beta_slow(self.slow)
            out.add_rope_scaling_attn_factors(self.attention)

    def frequencies(self, head_dim: int) -> "np.ndarray | None":
        """Give what llama.cpp divides each frequency by, float32 (head_dim / 2,), where the kind is llama3."""
        if self.kind != "llama3":
            return None
        import numpy as np

        wavelength = 2 * pi * self.theta ** (np.arange(0, head_dim, 2, dtype=np.float64) / head_dim)
        smooth = (self.original / wavelength - self.low) / (self.high - self.low)
        smooth = np.clip(smooth, 0.0, 1.0)
        return (1 / ((1 - smooth) / self.factor + smooth)).astype(np.float32)

    def notices(self, context: int) -> tuple[str, ...]:
        """Give what llama.cpp will do otherwise."""
        if self.kind != "dynamic":
            return ()
        text = _("Beyond {tokens} tokens the model stretches its positions; llama.cpp will not.")
        return (text.format(tokens=context),)


def read(config: Mapping[str, Any], path: Path, kinds: tuple[str, ...] = ("linear", "yarn", "dynamic")) -> Rope:
    """Give the rotary positions of a config.json, its scaling one of `kinds`. Raises FormatError."""
    found = config.get("rope_parameters") or config.get("rope_scaling") or {}  # since transformers 5, and before
    found = found if isinstance(found, dict) else {"type": found}
    kind = str(found.get("rope_type") or found.get("type") or "default")
    theta = number({**config, **found}, "rope_theta", 10000.0, path)
    if {**config, **found}.get("partial_rotary_factor") not in (None, 1, 1.0):
        raise unsupported(path, _("only a part of each head is rotated"))
    if kind == "default":
        return Rope(theta, kind)
    if kind not in kinds or found.get("truncate") is False:
        raise unsupported(path, _("its rope scaling is {name}").format(name=kind))
    if kind == "dynamic":
        return Rope(theta, kind)
    factor = number(found, "factor", 1.0, path)
    if kind == "linear":
        return Rope(theta, kind, factor)
    name = "original_max_position_embeddings"
    original = count(
        {name: config.get(name) or config.get("max_position_embeddings"), **found}, path, name, default=2048
    )
    if kind == "yarn":
        fast, slow = (number(found, f"beta_{name}", value, path) for name, value in (("fast", 32.0), ("slow", 1.0)))
        return Rope(theta, kind, factor, original, _attention(found, factor, path), fast, slow)
    low, high = (number(found, f"{name}_freq_factor", value, path) for name, value in (("low", 1.0), ("high", 4.0)))
    if high <= low:
        raise unsupported(path, _("its rope scaling is {name}").format(name=f"llama3 {low}, {high}"))
    return Rope(theta, kind, factor, original, low=low, high=high)


def _attention(found: Mapping[str, Any], factor: float, path: Path) -> float:
    """Give YaRN's factor of the attention over the one that llama.cpp takes by itself, 0.1 · ln(factor) + 1."""

    def scale(weight: float) -> float:
        return 0.1 * weight * log(factor) + 1.0 if factor > 1 else 1.0

    if found.get("attention_factor") is not None:
        return number(found, "attention_factor", 1.0, path) / scale(1.0)
    if found.get("mscale") and found.get("mscale_all_dim"):
        over, under = (number(found, name, 1.0, path) for name in ("mscale", "mscale_all_dim"))
        return scale(over) / scale(under) / scale(1.0)
    return 1.0
