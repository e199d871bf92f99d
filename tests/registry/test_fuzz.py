"""Files that lie as loudly as they can: sniffing them neither fails nor takes more than 64 MiB."""

import io
import json
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vigtui.registry.sniff import sniff

from .. import tiny
from . import torchfile

LIMIT = 64 << 20
MEASURE = """
import resource, sys
from pathlib import Path
from vigtui.registry import check
unit = 1 if sys.platform == "darwin" else 1024
check.sniff(Path(sys.argv[1]).parent / "nothing")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for name in sys.argv[1:]:
    found = check.sniff(Path(name))
    try:
        check.check(Path(name))
    except check.VigtuiError as error:
        str(error)
    print(found.kind)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * unit)
"""


def measure(*paths: Path) -> tuple[list[str], int]:
    """Sniff the files in one fresh process; give their kinds and the bytes that it grew by."""
    command = [sys.executable, "-c", MEASURE, *map(str, paths)]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    return lines[:-1], int(lines[-1])


def gguf(body: bytes, tensors: int, keys: int, size: int = 0) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        with path.open("wb") as file:
            file.write(b"GGUF" + struct.pack("<IQQ", 3, tensors, keys) + body)
            file.truncate(max(size, file.tell()))

    return write


def string(text: str) -> bytes:
    return struct.pack("<Q", len(text.encode())) + text.encode()


def array(kind: int, count: int) -> bytes:
    return string("a") + struct.pack("<IIQ", 9, kind, count)


def settings_folder(name: str, text: bytes) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        tiny.folder(path)
        (path / name).write_bytes(text)

    return write


def weights(text: bytes) -> Callable[[Path], None]:
    return settings_folder("model.safetensors", len(text).to_bytes(8, "little") + text)


def directory(path: Path) -> None:
    """A ZIP whose directory lists half a million files."""
    data = torchfile.archive({"w": (2,)})
    at = data.rfind(b"PK\x05\x06")
    start = struct.unpack_from("<I", data, at + 16)[0]
    entries = data[start:at] * 100_000
    end = data[at : at + 12] + struct.pack("<II", len(entries), start) + b"\0\0"
    path.write_bytes(data[:start] + entries + end)


def squeezed(path: Path) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("archive/data.pkl", bytes(200 << 20))
    path.write_bytes(out.getvalue())


def put(data: bytes) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        path.write_bytes(data)

    return write


def pickle(opcodes: bytes) -> Callable[[Path], None]:
    return put(torchfile.archive({}, pickle=b"\x80\x02" + opcodes + b"."))


def long_string(n: int) -> bytes:
    return string(f"k{n}") + struct.pack("<I", 8) + string("🦙" + "x" * (1 << 20) * (n % 2))


def small_tensor(n: int) -> bytes:
    return string(f"t{n}") + struct.pack("<IQIQ", 1, 32, 0, 0)


def small_key(n: int) -> bytes:
    return string(f"k{n}") + struct.pack("<II", 4, n)


ENTRY = b'"%06d":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},'
GGML = b"lmgg" + struct.pack("<I", 16) + struct.pack("<6I", 64, 1, 1, 1, 1, 1)
LOUD: dict[str, Callable[[], Callable[[Path], None]]] = {
    "billion-bytes.gguf": lambda: gguf(array(0, 10**9), 0, 1, size=2 * 10**9),
    "billion-strings.gguf": lambda: gguf(array(8, 10**9), 0, 1, size=9 * 10**9),
    "many-strings.gguf": lambda: gguf(array(8, 1_000_000), 0, 1, size=10**7),
    "long-strings.gguf": lambda: gguf(b"".join(map(long_string, range(60))), 0, 60),
    "many-tensors.gguf": lambda: gguf(b"".join(map(small_tensor, range(65_000))), 65_000, 0, size=4 << 20),
    "many-keys.gguf": lambda: gguf(b"".join(map(small_key, range(65_000))), 0, 65_000),
    "brackets": lambda: weights(b'{"a":' + b"[" * (20 << 20)),
    "lists": lambda: weights(b'{"a":[' + b"[]," * (5 << 20) + b"0]}"),
    "entries": lambda: weights(b"{" + b"".join(ENTRY % n for n in range(400_000))[:-1] + b"}"),
    "wide-text": lambda: weights('{"a🦙":"'.encode() + b"x" * (90 << 20) + b'"}'),
    "config": lambda: settings_folder("config.json", b'{"a":[' + b"{}," * (9 << 20) + b"0]}"),
    "index": lambda: settings_folder("model.safetensors.index.json", b'{"weight_map":{' + b'"a":"b",' * (4 << 20)),
    "tokenizer": lambda: settings_folder("tokenizer_config.json", b'{"eos_token":"' + b"x" * (80 << 20) + b'"}'),
    "added": lambda: settings_folder("tokenizer.json", b'{"added_tokens":[' + b'{"id":1},' * (6 << 20) + b"{}]}"),
    "directory.bin": lambda: directory,
    "squeezed.bin": lambda: squeezed,
    "memo.bin": lambda: pickle(b"}" + b"r\xff\xff\xff\x7f" * 1000),
    "lists.bin": lambda: pickle(b"(" + b"]" * (20 << 20) + b"t"),
    "text.bin": lambda: pickle(b"X" + struct.pack("<I", 60 << 20) + bytes(60 << 20)),
    "words.bin": lambda: put(b"lmgg" + struct.pack("<7I", 1 << 18, 64, 1, 1, 1, 1, 1) + bytes(4 << 20)),
    "tensors.bin": lambda: put(GGML + bytes(64) + struct.pack("<4IB", 1, 1, 0, 0, 97) * 5000),
}


@pytest.mark.parametrize("name", LOUD)
def test_a_loud_lie_takes_little_memory(tmp_path: Path, name: str) -> None:
    LOUD[name]()(tmp_path / name)
    (kind,), grown = measure(tmp_path / name)
    assert kind in ("truncated", "damaged", "vocabulary", "gguf", "torch", "ggml", "safetensors", "hollow")
    assert grown < LIMIT, f"{grown >> 20} MiB"


@given(
    body=st.binary(max_size=300),
    start=st.sampled_from([b"", b"PK\x03\x04", torchfile.MAGIC, b"tjgg\x03\0\0\0", b"lmgg"]),
)
@settings(max_examples=300, deadline=None)
def test_noise_never_surprises(tmp_path_factory: pytest.TempPathFactory, start: bytes, body: bytes) -> None:
    path = tmp_path_factory.mktemp("noise") / "a.bin"
    path.write_bytes(start + body)
    assert sniff(path).kind


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=4),
    max_leaves=12,
)
FIELDS = ("eos_token_id", "bos_token_id", "architectures", "model_type", "max_position_embeddings", "hidden_size",
          "quantization_config", "num_hidden_layers", "eos_token", "tokenizer_class", "added_tokens_decoder", "bits",
          "group_size", "base_model_name_or_path", "peft_type", "weight_map")  # fmt: skip
FILES = ("config.json", "generation_config.json", "tokenizer_config.json", "quantize_config.json",
         "adapter_config.json", "model.safetensors.index.json")  # fmt: skip


@given(values=st.dictionaries(st.sampled_from(FIELDS), JSON), name=st.sampled_from(FILES))
@settings(max_examples=300, deadline=None)
def test_settings_of_any_shape_never_surprise(
    tmp_path_factory: pytest.TempPathFactory, values: dict[str, object], name: str
) -> None:
    from vigtui.backends.base import LoadOptions
    from vigtui.registry.open import needs

    folder = tmp_path_factory.mktemp("folder")
    tiny.write_safetensors(folder / "model.safetensors", {})
    (folder / "config.json").write_text("{}")
    (folder / name).write_text(json.dumps(values))
    found = sniff(folder)
    assert found.kind
    needs("a", found, LoadOptions())
