"""What a file is: every kind, every cut, flipped bits and counts that lie."""

import json
import os
import struct
import subprocess
import sys
import tracemalloc
from pathlib import Path

import gguf
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file
from vigtui.core.errors import FormatError, NotFoundError, VigtuiError
from vigtui.registry import header
from vigtui.registry.check import check
from vigtui.registry.convert import adapter
from vigtui.registry.convert.model import convert
from vigtui.registry.sniff import sniff

from .. import tiny
from . import torchfile


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small GGUF; tests copy it."""
    folder = tmp_path_factory.mktemp("model")
    source = tiny.folder(folder / "hf", hidden_size=32, num_attention_heads=2, num_key_value_heads=1)
    convert(source, folder / "tiny.gguf", "q8_0")
    return folder / "tiny.gguf"


def refused(path: Path, *words: str) -> VigtuiError:
    with pytest.raises((FormatError, NotFoundError)) as caught:
        check(path)
    assert all(word in caught.value.message for word in words), caught.value.message
    assert caught.value.hint
    return caught.value


def test_a_gguf_model(model: Path) -> None:
    found = check(model)
    assert (found.kind, found.detail, found.architecture) == ("gguf", "GGUF v3", "llama")
    assert (found.quantization, found.context) == ("Q8_0", 256)
    assert found.size == model.stat().st_size >= (found.expected or 0) > found.size - 32
    assert found.header and found.header.text("tokenizer.ggml.model") == "llama"
    words = [token.decode() for token in header.tokens(found.header)]
    assert len(words) == 420 and words[:3] == ["<unk>", "<s>", "</s>"]


def test_it_agrees_with_the_reference_reader(model: Path) -> None:
    ours, reference = header.read(model), gguf.GGUFReader(model)
    assert [t.name for t in ours.tensors] == [t.name for t in reference.tensors]
    assert [t.size for t in ours.tensors] == [t.n_bytes for t in reference.tensors]
    for key, value in ours.metadata.items():
        field = reference.get_field(key)
        assert field is not None
        if isinstance(value, header.Array):
            assert value.count == len(field.data)
        else:
            assert value == pytest.approx(field.contents())


def raw_gguf(version: int, big_endian: bool = False) -> bytes:
    """A hand-made header: one key of each kind, one tensor."""
    order, wide = (">" if big_endian else "<"), ("I" if version == 1 else "Q")

    def text(value: str) -> bytes:
        return struct.pack(f"{order}{wide}", len(value)) + value.encode()

    def pack(code: str, *values: object) -> bytes:
        return struct.pack(order + code, *values)

    out = b"GGUF" + pack("I", version) + pack(2 * wide, 1, 4)
    out += text("general.architecture") + pack("I", 8) + text("llama")
    out += text("llama.context_length") + pack("I", 4) + pack("I", 77)
    out += text("tokenizer.ggml.tokens") + pack("II" + wide, 9, 8, 2) + text("a") + text("bc")
    out += text("numbers") + pack("II" + wide, 9, 6, 3) + pack("fff", 1, 2, 3)
    out += text("w") + pack("I" + 2 * wide + "IQ", 2, 4, 2, 0, 0)
    return out + b"\0" * (-len(out) % 32) + b"\0" * 32


@pytest.mark.parametrize(("version", "big_endian"), [(1, False), (2, False), (3, False), (3, True)])
def test_every_version_is_read(tmp_path: Path, version: int, big_endian: bool) -> None:
    path = tmp_path / "a.gguf"
    path.write_bytes(raw_gguf(version, big_endian))
    found = sniff(path)
    assert (found.kind, found.architecture, found.context, found.quantization) == ("gguf", "llama", 77, "F32")
    assert found.parameters == 8 and found.expected == found.size
    assert found.header and list(header.tokens(found.header)) == [b"a", b"bc"]
    if version == 1:
        refused(path, "version 1")
    elif big_endian:
        refused(path, "byte order")
    else:
        check(path)


FIRST_BYTES = {
    "lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 4\n", "git-lfs"),
    "html": (b"\n<!DOCTYPE html><html><body>404</body></html>", "web page"),
    "ggml": (b"tjgg" + struct.pack("<8I", 3, 0, 4096, 256, 32, 32, 128, 2), "GGJT v3"),
    "truncated": (b"PK\x03\x04" + b"archive/data.pkl" * 4, "cut short"),
    "pickle": (b"\x80\x02}q\x00.", "pickle"),
    "unknown": (b"Hello, I am a text file.", "no model file"),
    "empty": (b"", "empty"),
    "tokenizer": (b"\x0a\x0e\x0a\x05<unk>\x15\0\0\0\0\x18\x02", "tokenizer"),
}


@pytest.mark.parametrize("kind", FIRST_BYTES)
def test_what_is_no_model_is_named(tmp_path: Path, kind: str) -> None:
    data, words = FIRST_BYTES[kind]
    (tmp_path / "model.gguf").write_bytes(data)
    assert sniff(tmp_path / "model.gguf").kind == kind
    refused(tmp_path / "model.gguf", "model.gguf", words)


@pytest.mark.parametrize(
    ("data", "detail"),
    [
        (b"lmgg" + bytes(64), "GGML"),
        (b"fmgg\x01" + bytes(64), "GGMF v1"),
        (b"tjgg\x01\0\0\0" + bytes(64), "GGJT v1"),
        (b"tjgg\x02\0\0\0" + bytes(64), "GGJT v2"),
        (b"algg\x01\0\0\0" + bytes(64), "GGLA v1"),
    ],
)
def test_the_files_of_2023(tmp_path: Path, data: bytes, detail: str) -> None:
    (tmp_path / "ggml-model-q4_0.bin").write_bytes(data[:5] + bytes(3) + data[8:])
    found = sniff(tmp_path / "ggml-model-q4_0.bin")
    if data.startswith(b"algg"):
        assert found.kind == "damaged"
    else:
        assert found.detail == detail
        assert "GGUF" in refused(tmp_path / "ggml-model-q4_0.bin", detail, "August 2023").hint


def test_paths_that_are_no_file(tmp_path: Path) -> None:
    assert sniff(tmp_path / "nothing").kind == "missing"
    assert sniff(tmp_path / "zero\0byte").kind == "missing"
    assert isinstance(refused(tmp_path / "nothing"), NotFoundError)
    assert sniff(tmp_path).kind == "folder"
    refused(tmp_path, "holds no model")
    os.mkfifo(tmp_path / "pipe")
    assert sniff(tmp_path / "pipe").kind == "unknown"
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    assert sniff(tmp_path / "loop").kind in ("missing", "unreadable")


def test_folders(tmp_path: Path, model: Path) -> None:
    folder = tiny.folder(tmp_path / "hf")
    found = check(folder)
    assert (found.kind, found.architecture, found.quantization, found.context) == (
        "safetensors",
        "LlamaForCausalLM",
        "F32",
        256,
    )
    assert {file.name for file in found.files} == {
        "config.json",
        "tokenizer.model",
        "tokenizer_config.json",
        "model.safetensors",
    }
    assert check(folder / "model.safetensors").path == folder
    lora = check(tiny.adapter(tmp_path / "lora", folder))
    assert (lora.kind, lora.detail) == ("adapter", "PEFT LORA")
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "a.gguf").write_bytes(model.read_bytes())
    assert check(tmp_path / "one").path == tmp_path / "one" / "a.gguf"
    (tmp_path / "one" / "b.gguf").write_bytes(model.read_bytes())
    assert "several" in refused(tmp_path / "one").hint
    (tmp_path / "meta").mkdir()
    (tmp_path / "meta" / "consolidated.00.pth").write_bytes(torchfile.archive({"layers.0.attention.wq.weight": (2, 2)}))
    assert "params.json" in sniff(tmp_path / "meta").detail
    assert "tokenizer.model" in refused(tmp_path / "meta", "Meta", "lacks").message


def test_folders_of_quantized_weights(tmp_path: Path) -> None:
    folder = tiny.folder(tmp_path / "a", quantization_config={"quant_method": "gptq", "bits": 4})
    assert sniff(folder).kind == "gptq"
    folder = tiny.folder(tmp_path / "b", tensors={"model.layers.0.self_attn.q_proj.qweight": np.zeros((8, 8), "i4")})
    (folder / "model.safetensors").rename(folder / "gptq_model-4bit-128g.safetensors")
    assert (sniff(folder).kind, sniff(folder).quantization) == ("gptq", "GPTQ")
    assert sniff(folder).parameters is None
    (folder / "quant_config.json").write_text("{}")
    refused(folder, "AWQ")


def test_folders_of_pytorch_weights(tmp_path: Path) -> None:
    folder = tiny.folder(tmp_path / "c")
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(torchfile.archive({"model.norm.weight": (64,)}))
    for path in (folder, folder / "pytorch_model.bin"):
        found = sniff(path)
        assert (found.kind, found.path, found.quantization, found.parameters) == ("safetensors", folder, "F16", 64)
        assert "PyTorch" in found.notices[0] and found.context == 256
        assert found.files[0].name == "config.json" and found.files[-1].name == "pytorch_model.bin"
    listing = folder / "pytorch_model.bin.index.json"
    listing.write_text(json.dumps({"weight_map": {"a": "pytorch_model-00001-of-00002.bin"}}))
    refused(folder, "lacks", "pytorch_model-00001-of-00002.bin")
    listing.unlink()
    harm = torchfile.harm(str(tmp_path / "harmed"))
    data = torchfile.archive({"w": (2,)}, pickle=torchfile.state({"w": (2,)}, more=harm))
    (folder / "pytorch_model.bin").write_bytes(data)
    refused(folder, "run code", "posix.system")
    (folder / "config.json").unlink()
    (folder / "pytorch_model.bin").write_bytes(torchfile.archive({"model.norm.weight": (64,)}))
    refused(folder / "pytorch_model.bin", "PyTorch", "config.json")


def test_what_is_wrong_inside_a_folder(tmp_path: Path) -> None:
    folder = tiny.folder(tmp_path / "hf")
    listing = folder / "model.safetensors.index.json"
    listing.write_text(json.dumps({"weight_map": {"a": "model-00001-of-00002.safetensors"}}))
    refused(folder, "lacks", "model-00001-of-00002.safetensors")
    listing.write_text("<html>")
    refused(folder, "index.json")
    listing.unlink()
    (folder / "model.safetensors").write_bytes(FIRST_BYTES["lfs"][0])
    refused(folder, "model.safetensors", "pointer")
    (folder / "config.json").write_bytes(FIRST_BYTES["html"][0])
    refused(folder, "config.json", "web page")
    (folder / "config.json").write_text("[]")
    refused(folder, "config.json")


def test_weights_alone(tmp_path: Path) -> None:
    save_file({"a": np.zeros(4, np.float32)}, tmp_path / "a.safetensors")
    assert sniff(tmp_path / "a.safetensors").kind == "weights"
    refused(tmp_path / "a.safetensors", "config.json")


@pytest.mark.parametrize("keep", [0.02, 0.5, 0.999])
def test_cut_safetensors(tmp_path: Path, keep: float) -> None:
    folder = tiny.folder(tmp_path / "hf")
    path = folder / "model.safetensors"
    size = path.stat().st_size
    path.write_bytes(path.read_bytes()[: int(size * keep)])
    found = sniff(folder)
    assert found.kind == "truncated" and found.size == int(size * keep)
    assert found.expected in (None, size)
    refused(folder, "cut short")


@given(at=st.integers(0, 40_000))
@settings(max_examples=150, deadline=None)
def test_a_gguf_cut_anywhere_is_truncated(model: Path, tmp_path_factory, at: int) -> None:
    data = model.read_bytes()
    expected = sniff(model).expected or 0
    path = tmp_path_factory.mktemp("cut") / "a.gguf"
    path.write_bytes(data[: min(at, expected - 1)])
    kind = sniff(path).kind
    assert kind == ("empty" if at == 0 else "unknown" if at < 4 else "truncated")


@given(flips=st.lists(st.integers(0, 8 * 14_000), min_size=1, max_size=4))
@settings(max_examples=300, deadline=None)
def test_flipped_bits_never_surprise(model: Path, tmp_path_factory, flips: list[int]) -> None:
    data = bytearray(model.read_bytes())
    for flip in flips:
        data[flip // 8] ^= 1 << flip % 8
    path = tmp_path_factory.mktemp("flip") / "a.gguf"
    path.write_bytes(data)
    try:
        assert check(path).kind in ("gguf", "adapter")
    except FormatError as error:
        assert error.hint


@given(body=st.binary(max_size=400))
@settings(max_examples=200, deadline=None)
def test_random_bytes_never_surprise(tmp_path_factory, body: bytes) -> None:
    folder = tmp_path_factory.mktemp("random")
    for start in (b"", b"GGUF\x03\0\0\0", b"GGUF\x01\0\0\0", (len(body) + 1).to_bytes(8, "little") + b"{", b"tjgg"):
        (folder / "a").write_bytes(start + body)
        assert sniff(folder / "a").kind


HUGE = 2**64 - 1


@pytest.mark.parametrize(
    "lie",
    [
        struct.pack("<QQ", HUGE, 0),
        struct.pack("<QQ", 0, HUGE),
        struct.pack("<QQ", 0, 65_000),
        struct.pack("<QQQ", 0, 1, HUGE),
        struct.pack("<QQQ1sIIQ", 0, 1, 1, b"a", 9, 8, HUGE),
        struct.pack("<QQQ1sIIQ", 0, 1, 1, b"a", 9, 8, 4_000_000),
        struct.pack("<QQQ1sIIQQ", 0, 1, 1, b"a", 9, 8, 2, HUGE - 3),
        struct.pack("<QQQ1sIIQ", 0, 1, 1, b"a", 9, 12, HUGE),
        struct.pack("<QQQ1sIIQ", 0, 1, 1, b"a", 9, 9, 3),
        struct.pack("<QQQ1sIQ", 0, 1, 1, b"a", 8, HUGE),
        struct.pack("<QQQ1sI", 0, 1, 1, b"a", 99),
        struct.pack("<QQQ1sI", 1, 0, 1, b"a", HUGE & 0xFFFFFFFF),
        struct.pack("<QQQ1sIQQQQIQ", 1, 0, 1, b"a", 4, HUGE, HUGE, HUGE, HUGE, 0, HUGE),
    ],
)
@pytest.mark.parametrize("room", [64, 3 << 20])
def test_counts_that_lie(tmp_path: Path, lie: bytes, room: int) -> None:
    path = tmp_path / "a.gguf"
    with path.open("wb") as file:
        file.write(b"GGUF" + struct.pack("<I", 3) + lie)
        file.truncate(24 + len(lie) + room)
    tracemalloc.start()
    kind = sniff(path).kind
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert kind in ("truncated", "damaged")
    assert peak < 24 << 20


@pytest.mark.parametrize(
    "entries",
    [
        {"a": {"dtype": "F32", "shape": [HUGE], "data_offsets": [0, 4]}},
        {"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}},
        {"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]}},
        {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}},
        {"a": {"dtype": "F32", "shape": [1], "data_offsets": [0]}},
        {"a": {"dtype": "F32", "shape": [True], "data_offsets": [0, 4]}},
        {"a": {"dtype": "F32", "shape": 1, "data_offsets": [0, 4]}},
        {"a": []},
        {"a": {"dtype": [], "shape": [], "data_offsets": [0, 4]}},
        {"__metadata__": [], "a": None},
        [],
    ],
)
def test_safetensors_headers_that_lie(tmp_path: Path, entries: object) -> None:
    folder = tiny.folder(tmp_path / "hf")
    text = json.dumps(entries).encode()
    (folder / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + bytes(4))
    assert sniff(folder).kind in ("damaged", "truncated")
    (folder / "model.safetensors").write_bytes((9 << 60).to_bytes(8, "little") + b"{")
    assert sniff(folder).kind in ("damaged", "truncated")
    (folder / "model.safetensors").write_bytes((200_000).to_bytes(8, "little") + b"[" * 200_000)
    assert sniff(folder).kind in ("damaged", "truncated")


def changed(model: Path, target: Path, **values: object) -> Path:
    """Write `model` again with other metadata; `tokens` replaces the vocabulary's first ones."""
    keys = {key.replace("__", "."): value for key, value in values.items()}
    return tiny.rewrite_gguf(model, target, lambda key, value: keys.get(key, value))


TOKENS = "tokenizer__ggml__tokens"


@pytest.mark.parametrize(
    "values",
    [
        {"llama__block_count": 0},
        {"llama__block_count": 513},
        {"llama__attention__layer_norm_rms_epsilon": 0.0},
        {"llama__attention__layer_norm_rms_epsilon": -1e-5},
        {"llama__attention__layer_norm_rms_epsilon": float("nan")},
        {"tokenizer__ggml__model": "bert"},
        {TOKENS: lambda words: ["", *words[1:]]},
        {TOKENS: lambda words: [*words[:-1], words[300]]},
        {TOKENS: lambda words: [*words[:-1], words[300] + "\0x"]},
    ],
)
def test_what_kills_the_engine_is_refused(model: Path, tmp_path: Path, values: dict) -> None:
    words = [token.decode("utf-8", "replace") for token in header.tokens(header.read(model))]
    values = {key: value(words) if callable(value) else value for key, value in values.items()}
    assert check(changed(model, tmp_path / "same.gguf")).kind == "gguf"
    error = refused(changed(model, tmp_path / "a.gguf", **values), "damaged")
    assert "\n" not in error.message


def test_split_models(model: Path, tmp_path: Path) -> None:
    parts = [tmp_path / f"big-0000{n}-of-00002.gguf" for n in (1, 2)]
    for n, part in enumerate(parts):
        writer = gguf.GGUFWriter(part, "llama")
        writer.add_uint16("split.count", 2)
        writer.add_uint16("split.no", n)
        writer.add_tensor(f"t{n}", np.zeros((4, 32), np.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    found = sniff(parts[0])
    assert (found.files, found.parameters) == (tuple(parts), 256)
    assert found.size == sum(part.stat().st_size for part in parts)
    assert sniff(tmp_path).files == tuple(parts)
    parts[1].write_bytes(parts[1].read_bytes()[:-40])
    assert sniff(parts[0]).kind == "truncated"
    parts[1].unlink()
    refused(parts[0], "lacks", parts[1].name)


def test_a_gguf_adapter(model: Path, tmp_path: Path) -> None:
    base = tiny.folder(tmp_path / "hf")
    adapter.convert(tiny.adapter(tmp_path / "lora", base), None, tmp_path / "lora.gguf")
    assert check(tmp_path / "lora.gguf").kind == "adapter"


def test_a_large_vocabulary_takes_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "big.gguf"
    count = 300_000
    with path.open("wb") as file:
        file.write(b"GGUF" + struct.pack("<IQQ", 3, 0, 2))
        for key in (b"tokenizer.ggml.tokens", b"tokenizer.ggml.merges"):
            file.write(struct.pack("<Q", len(key)) + key + struct.pack("<IIQ", 9, 8, count))
            file.writelines(struct.pack("<Q", 12) + b"%012d" % n for n in range(count))
    tracemalloc.start()
    found = sniff(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found.kind == "vocabulary" and peak < 8 << 20


def test_sniffing_imports_neither_numpy_nor_torch() -> None:
    code = (
        "import sys, vigtui.registry.open, vigtui.registry.store, vigtui.registry.convert.model;"
        "bad = {'numpy', 'gguf', 'torch', 'sentencepiece', 'llama_cpp', 'huggingface_hub'} & set(sys.modules);"
        "sys.exit(str(bad) if bad else 0)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
