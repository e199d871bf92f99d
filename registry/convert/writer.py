"""GGUF files written piece by piece and published at once."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

from ...core.errors import FormatError
from ...core.i18n import _
from ...core.progress import Progress
from . import publish

if TYPE_CHECKING:
    import gguf
    import numpy as np

_OWN = {"F32": "<f4", "F16": "<f2", "BF16": "<u2"}
"""Types that are written as they come, and what numpy calls them: bfloat16 travels as uint16."""
_ENDLESS = {"<f4": ("<i4", "<u4", 0x7F800000), "<f2": ("<i2", "<u2", 0x7C00), "<u2": ("<i2", "<u2", 0x7F80)}
"""Type → signed and unsigned integers of its size, and the bits of infinity; those of a NaN are larger."""
_LARGEST = 127 * 65504.0
"""What a Q8_0 block can hold: 127 times a float16 scale."""


@dataclass(frozen=True, slots=True)
class Output:
    """A tensor to write: `kind` "F32", "F16", "BF16" or "Q8_0", `shape` row-major.

    `pieces` gives it along axis 0 as float16, float32, float64, or uint16 that holds bfloat16; or as uint8, the bytes
    of whole rows in any `kind` of ggml, which are written as they are.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    pieces: "Callable[[], Iterator[np.ndarray]]"


def write(
    target: Path,
    architecture: str,
    describe: "Callable[[gguf.GGUFWriter], None]",
    outputs: Sequence[Output],
    progress: Progress,
) -> None:
    """Publish `target`: the metadata that `describe` adds, then `outputs`, one piece in memory at a time.

    Raises FormatError for a value that is not finite or too large for float16, CapacityError for a full disk.
    """
    import gguf  # 0.2 s with numpy: only when a file is written

    with publish.file(target) as temporary:
        writer = gguf.GGUFWriter(temporary, architecture)
        try:
            describe(writer)
            for output in outputs:
                _announce(writer, output)
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_ti_data_to_file()
            for done, output in enumerate(outputs):
                progress(_("convert"), done, len(outputs))
                _append(writer, output)
            progress(_("convert"), len(outputs), len(outputs))
        finally:
            writer.close()


def _announce(writer: "gguf.GGUFWriter", output: Output) -> None:
    import gguf
    import numpy as np

    kind = gguf.GGMLQuantizationType[output.kind]
    shape = gguf.quant_shape_to_byte_shape(output.shape, kind)
    writer.add_tensor_info(output.name, shape, np.dtype(np.uint8), prod(shape), raw_dtype=kind)


def _append(writer: "gguf.GGUFWriter", output: Output) -> None:
    assert writer.fout is not None
    file = writer.fout[0]
    writer.write_padding(file, file.tell())
    for piece in output.pieces():
        data = encode(piece, output.kind)
        if data is None:
            raise FormatError(
                _("{name} holds a value that {kind} cannot hold.").format(name=output.name, kind=output.kind),
                _("Convert as f32, or fetch the weights again."),
            )
        file.write(data.data.cast("B"))
    writer.write_padding(file, file.tell())


def encode(piece: "np.ndarray", kind: str) -> "np.ndarray | None":
    """Give the bytes of `piece` (as Output has them) as `kind`, or None for a value that it cannot hold.

    Not a number and infinity are such values. A piece that is of that type already is checked and not copied.
    """
    import gguf
    import numpy as np

    if piece.dtype == np.uint8:
        return np.ascontiguousarray(piece)
    own = _OWN.get(kind)
    if own is None or piece.dtype != own:
        wide = _wide(piece)
        if kind == "Q8_0" and not np.abs(wide).max(initial=0.0) <= _LARGEST:  # false for NaN too
            return None
        with np.errstate(over="ignore", invalid="ignore"):  # the check below finds both
            plain = own in ("<f4", "<f2")
            piece = wide.astype(own) if plain else gguf.quants.quantize(wide, gguf.GGMLQuantizationType[kind])
    data = np.ascontiguousarray(piece)
    return data if own is None or _finite(data.view(own), own) else None


def _wide(piece: "np.ndarray") -> "np.ndarray":
    import numpy as np

    if piece.dtype == np.uint16:  # the upper half of a float32
        return (piece.astype(np.uint32) << 16).view(np.float32)
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(piece, np.float32)


def _finite(values: "np.ndarray", own: str) -> bool:
    """Tell by two comparisons of integers: infinity and NaN are the largest bit patterns of either sign."""
    signed, unsigned, bits = _ENDLESS[own]
    negative = bits | 1 << (8 * values.itemsize - 1)
    return values.view(signed).max(initial=0) < bits and values.view(unsigned).max(initial=0) < negative
