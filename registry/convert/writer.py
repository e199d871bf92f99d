"""GGUF files written piece by piece and published at once."""

import errno
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

from ...core.errors import CapacityError, FormatError
from ...core.i18n import _
from ...core.progress import Progress

if TYPE_CHECKING:
    import gguf
    import numpy as np

_LARGEST = {"F32": 3.4028235e38, "F16": 65504.0, "Q8_0": 127 * 65504.0}


@dataclass(frozen=True, slots=True)
class Output:
    """A tensor to write: `kind` "F32", "F16" or "Q8_0", `shape` row-major; `pieces` gives float32 along axis 0."""

    name: str
    kind: str
    shape: tuple[int, ...]
    pieces: "Callable[[], Iterator[np.ndarray]]"


@contextmanager
def publishing(target: Path) -> Iterator[Path]:
    """Give a temporary path beside `target`; at the end sync and rename it, after a failure remove it.

    Raises CapacityError when the disk is full.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    _sweep(target)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise CapacityError(
            _("The disk is full: {path} was not written.").format(path=target),
            _("Free some space, or choose another folder."),
        ) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _sweep(target: Path) -> None:
    """Remove what a process that was killed left of the same file."""
    for path in target.parent.iterdir():
        middle = path.name.removeprefix(f".{target.name}.").removesuffix(".tmp")
        if path.name == f".{target.name}.{middle}.tmp" and middle.isdecimal():
            try:
                os.kill(int(middle), 0)
            except (ProcessLookupError, OverflowError):
                path.unlink(missing_ok=True)
            except PermissionError:  # alive, and another user's
                continue


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

    with publishing(target) as temporary:
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
    import gguf
    import numpy as np

    assert writer.fout is not None
    file = writer.fout[0]
    writer.write_padding(file, file.tell())
    for piece in output.pieces():
        if not np.abs(piece).max(initial=0.0) <= _LARGEST[output.kind]:  # false for NaN too
            raise FormatError(
                _("{name} holds a value that {kind} cannot hold.").format(name=output.name, kind=output.kind),
                _("Convert as f32, or fetch the weights again."),
            )
        data = gguf.quants.quantize(np.ascontiguousarray(piece), gguf.GGMLQuantizationType[output.kind])
        file.write(data.tobytes())
    writer.write_padding(file, file.tell())
