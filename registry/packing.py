"""How quantized linear layers are packed, inferred from the shapes of their tensors alone.

GPTQ (AutoGPTQ, GPTQ-for-LLaMa): int32 qweight (in·bits/32, out). AWQ (llm-awq, GEMM): int32 qweight (in, out·bits/32).
Both: int32 qzeros (in/group, out·bits/32), scales (in/group, out).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

_PARTS = ("qweight", "qzeros", "scales")


class Shaped(Protocol):
    """A tensor as far as it matters here."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows, columns."""
        ...


@dataclass(frozen=True, slots=True)
class Packing:
    """`method` "gptq" or "awq"; `group` −1 is one group for a whole column; `act_order` None where nothing tells it."""

    method: str
    bits: int
    group: int
    act_order: bool | None = None

    @property
    def name(self) -> str:
        """As in the name of a model: GPTQ-4bit-128g."""
        group = f"{self.group}g" if self.group > 0 else "nog"
        return f"{self.method.upper()}-{self.bits}bit-{group}" + ("-actorder" if self.act_order else "")


def inferred(tensors: Mapping[str, Shaped]) -> Packing | None:
    """Give the packing of the first linear layer whose tensors fit together, or None."""
    return next((found for name in tensors if (found := _layer(tensors, name))), None)


def _layer(tensors: Mapping[str, Shaped], name: str) -> Packing | None:
    if not name.endswith(".qweight"):
        return None
    layer = name.removesuffix("qweight")
    shapes = [tensors[layer + part].shape for part in _PARTS if layer + part in tensors]
    if len(shapes) != len(_PARTS) or any(len(shape) != 2 or not all(shape) for shape in shapes):
        return None
    rows, columns, _groups, zeros, groups, outputs = (size for shape in shapes for size in shape)
    bits = 32 * zeros // outputs
    if bits not in (2, 3, 4, 8):
        return None
    method, inputs = ("gptq", rows * 32 // bits) if columns == outputs else ("awq", rows)
    if method == "awq" and columns != zeros:
        return None
    group = inputs // groups if groups > 1 else -1
    return Packing(method, bits, group)


def stated(settings: Mapping[str, Any]) -> Packing | None:
    """Give what quantize_config.json, quant_config.json or quantization_config says, or None."""
    bits, group = (_first(settings, *names) for names in (("bits", "w_bit"), ("group_size", "q_group_size")))
    if type(bits) is not int or bits not in (2, 3, 4, 8):
        return None
    method = str(settings.get("quant_method") or ("awq" if "w_bit" in settings else "gptq"))
    order = settings.get("desc_act")
    return Packing(method, bits, group if type(group) is int and group > 0 else -1, bool(order) if order else None)


def _first(settings: Mapping[str, Any], *names: str) -> Any:
    return next((settings[name] for name in names if name in settings), None)
