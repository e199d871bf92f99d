"""The quantization types of llama.cpp, by the names that people use."""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass

from ...core.errors import UsageError
from ...core.i18n import _


@dataclass(frozen=True, slots=True)
class Type:
    """`number` is the llama_ftype, `bits` what a weight of an 8B Llama takes (llama.cpp, tools/quantize/README.md).

    `needs_matrix` tells whether llama.cpp refuses it without an importance matrix.
    """

    number: int
    bits: float
    needs_matrix: bool = False


TYPES: Mapping[str, Type] = {
    "Q4_0": Type(2, 4.66), "Q4_1": Type(3, 5.13), "Q5_0": Type(8, 5.60), "Q5_1": Type(9, 6.07), "Q8_0": Type(7, 8.50),
    "Q2_K": Type(10, 3.16), "Q2_K_S": Type(21, 2.97, True),
    "Q3_K_S": Type(11, 3.64), "Q3_K_M": Type(12, 4.00), "Q3_K_L": Type(13, 4.30),
    "Q4_K_S": Type(14, 4.67), "Q4_K_M": Type(15, 4.89), "Q5_K_S": Type(16, 5.57), "Q5_K_M": Type(17, 5.70),
    "Q6_K": Type(18, 6.56),
    "IQ1_S": Type(24, 2.00, True), "IQ1_M": Type(31, 2.15, True),
    "IQ2_XXS": Type(19, 2.38, True), "IQ2_XS": Type(20, 2.59, True), "IQ2_S": Type(28, 2.74, True),
    "IQ2_M": Type(29, 2.93, True), "IQ3_XXS": Type(23, 3.25, True), "IQ3_XS": Type(22, 3.50, True),
    "IQ3_S": Type(26, 3.66), "IQ3_M": Type(27, 3.76), "IQ4_XS": Type(30, 4.46), "IQ4_NL": Type(25, 4.68),
    "TQ1_0": Type(36, 2.08), "TQ2_0": Type(37, 2.42), "Q1_0": Type(40, 1.60), "Q2_0": Type(41, 2.58),
    "MXFP4_MOE": Type(38, 8.50), "F16": Type(1, 16.0), "BF16": Type(32, 16.0), "F32": Type(0, 32.0),
}  # fmt: skip
"""Usual name → llama_ftype (llama.h)."""
ALIASES: Mapping[str, str] = {"Q3_K": "Q3_K_M", "Q4_K": "Q4_K_M", "Q5_K": "Q5_K_M", "MXFP4": "MXFP4_MOE"}


def named(text: str) -> str:
    """Give the usual name of the type that `text` means, in any case. Raises UsageError with the nearest names."""
    name = text.strip().upper().replace("-", "_")
    name = ALIASES.get(name, name)
    if name in TYPES:
        return name
    near = difflib.get_close_matches(name, [*TYPES, *ALIASES], n=3, cutoff=0.5)
    hint = _("Did you mean {names}?") if near else _("Choose one of: {names}.")
    raise UsageError(
        _("There is no quantization type {name}.").format(name=text),
        hint.format(names=", ".join(near or TYPES)),
    )
