"""PyTorch files written without torch, opcode by opcode, as torch.save writes them; and pickles that mean harm."""

import io
import struct
import zipfile
from collections.abc import Mapping
from math import prod

MAGIC = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."
STORAGES = {"F32": (b"FloatStorage", 4), "F16": (b"HalfStorage", 2), "I32": (b"IntStorage", 4)}
Shapes = Mapping[str, tuple[int, ...]]


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def numbers(values: tuple[int, ...]) -> bytes:
    return b"(" + b"".join(b"J" + struct.pack("<i", value) for value in values) + b"t"


def tensor(shape: tuple[int, ...], dtype: str, key: int, tail: bytes = b"") -> bytes:
    """The opcodes of one tensor that has a storage of its own."""
    storage = b"(" + text("storage") + b"ctorch\n" + STORAGES[dtype][0] + b"\n" + text(str(key)) + text("cpu")
    storage += b"J" + struct.pack("<i", prod(shape)) + tail + b"tQ"
    strides = tuple(prod(shape[i + 1 :]) for i in range(len(shape)))
    rest = b"K\x00" + numbers(shape) + numbers(strides) + b"\x89" + b"ccollections\nOrderedDict\n)R"
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + rest + b"tR"


def state(shapes: Shapes, dtype: str = "F16", tail: bytes = b"", more: bytes = b"") -> bytes:
    """The pickle of a state dictionary."""
    items = b"".join(text(name) + tensor(shape, dtype, key, tail) for key, (name, shape) in enumerate(shapes.items()))
    return b"\x80\x02}q\x00(" + items + more + b"u."


def archive(shapes: Shapes, dtype: str = "F16", pickle: bytes | None = None, compression: int = 0) -> bytes:
    """A file as torch has saved it since 1.6."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compression) as target:
        target.writestr("archive/data.pkl", state(shapes, dtype) if pickle is None else pickle)
        for key, shape in enumerate(shapes.values()):
            target.writestr(f"archive/data/{key}", bytes(prod(shape) * STORAGES[dtype][1]))
        target.writestr("archive/version", "3\n")
    return out.getvalue()


def old(shapes: Shapes, dtype: str = "F16") -> bytes:
    """A file as torch saved it before 1.6."""
    head = MAGIC + b"\x80\x02M\xe9\x03." + b"\x80\x02}q\x00."
    keys = b"\x80\x02](" + b"".join(text(str(key)) for key in range(len(shapes))) + b"e."
    sizes = [prod(shape) for shape in shapes.values()]
    data = b"".join(struct.pack("<q", size) + bytes(size * STORAGES[dtype][1]) for size in sizes)
    return head + state(shapes, dtype, tail=b"N") + keys + data


def harm(path: str) -> bytes:
    """The opcodes of a value that, unpickled, would create the file `path`."""
    return text("harm") + b"cposix\nsystem\n(" + text(f"touch {path}") + b"tR"
