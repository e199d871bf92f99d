"""How a GPTQ checkpoint is packed, told from its tensors: those of 2023 come without quantize_config.json.

AutoGPTQ and GPTQ-for-LLaMa: int32 qweight (in·bits/32, out), qzeros (in/group, out·bits/32), scales (in/group, out),
and g_idx (in), the group of each input. Version 1 stores zero − 1, version 2 the zero point itself.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.errors import FormatError
from ..core.i18n import _

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, slots=True)
class Layout:
    """`group` is −1 for one group a column; `symmetric` says that every zero point is the middle."""

    bits: int
    group: int
    act_order: bool
    symmetric: bool
    version: int

    def settings(self) -> dict[str, Any]:
        """Give what quantize_config.json would say."""
        return {
            "bits": self.bits,
            "group_size": self.group,
            "desc_act": self.act_order,
            "sym": self.symmetric,
            "quant_method": "gptq",
            "checkpoint_format": "gptq" if self.version == 1 else "gptq_v2",
        }


def read(path: Path) -> Layout:
    """Give the layout of the first packed layer that is whole in the safetensors file `path`. Raises FormatError."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as file:
            names = set(file.keys())
            layers = (name.removesuffix("qweight") for name in sorted(names) if name.endswith(".qweight"))
            layer = next((one for one in layers if {one + "qzeros", one + "scales"} <= names), None)
            if layer is None:
                raise _refusal(path)
            rows, out = file.get_slice(layer + "qweight").get_shape()
            groups, packed = file.get_slice(layer + "qzeros").get_shape()
            zeros = file.get_tensor(layer + "qzeros")
            order = file.get_tensor(layer + "g_idx") if layer + "g_idx" in names else None
    except (SafetensorError, OSError, ValueError) as error:
        raise _refusal(path) from error
    bits = 32 * packed // out if out else 0
    if bits not in (2, 3, 4, 8) or not groups:
        raise _refusal(path)
    inputs = rows * 32 // bits
    group = inputs // groups if groups > 1 else -1
    middle = _only(zeros, bits)
    return Layout(
        bits,
        group,
        act_order=_shuffled(order, group),
        symmetric=middle in (half := (2 ** (bits - 1) - 1, 2 ** (bits - 1))),
        version=2 if middle == half[1] else 1,
    )


def _refusal(path: Path) -> FormatError:
    return FormatError(
        _("{path} holds no GPTQ weights that can be read.").format(path=path),
        _("`vigtui show {path}` tells what it is.").format(path=path.parent),
    )


def _shuffled(order: "np.ndarray | None", group: int) -> bool:
    """Whether inputs were put into groups by their importance (act-order) rather than one after the other."""
    import numpy as np

    return order is not None and group > 0 and bool((order != np.arange(len(order)) // group).any())


def _only(zeros: "np.ndarray", bits: int) -> int | None:
    """Give the zero point that all columns store, None when they differ. Values lie in the words from the low end."""
    import numpy as np

    stream = np.unpackbits(np.ascontiguousarray(zeros).astype("<i4").view(np.uint8), axis=-1, bitorder="little")
    values = stream.reshape(-1, bits) @ (1 << np.arange(bits))
    return int(values[0]) if (values == values[0]).all() else None
