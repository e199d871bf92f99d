"""PyTorch files: what they hold is read without running anything in them."""

import struct
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vigtui.core.errors import FormatError
from vigtui.registry import checkpoint
from vigtui.registry.check import check
from vigtui.registry.sniff import sniff

from .. import tiny
from . import torchfile

LORA = {
    "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight": (8, 64),
    "base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight": (64, 8),
}
GPTQ = {"l.qweight": (16, 32), "l.qzeros": (2, 4), "l.scales": (2, 32)}


@pytest.fixture(params=["archive", "old"])
def write(request: pytest.FixtureRequest):
    return getattr(torchfile, request.param)


def put(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def sentence(path: Path) -> str:
    with pytest.raises(FormatError) as caught:
        check(path)
    assert caught.value.hint
    return str(caught.value)


def test_tensors_are_read_with_shape_and_type(tmp_path: Path, write) -> None:
    found = checkpoint.read(put(tmp_path / "a.bin", write({"model.norm.weight": (64,), "w": (3, 4, 5)}, "F32")))
    assert {name: (one.dtype, one.shape) for name, one in found.tensors.items()} == {
        "model.norm.weight": ("F32", (64,)),
        "w": ("F32", (3, 4, 5)),
    }
    assert (found.parameters, found.empty, found.strange) == (124, False, ())


def test_what_is_inside_decides(tmp_path: Path, write) -> None:
    found = sniff(put(tmp_path / "pytorch_model.bin", write(LORA)))
    assert (found.kind, found.variant) == ("torch", "adapter") and "rank 8" in found.detail
    assert "rank 8" in sentence(tmp_path / "pytorch_model.bin")
    found = sniff(put(tmp_path / "llama7b-4bit-16g.pt", write(GPTQ, "I32")))
    assert (found.variant, found.quantization) == ("gptq", "GPTQ-4bit-64g")
    assert sniff(put(tmp_path / "consolidated.00.pth", write({"layers.0.attention.wq.weight": (2, 2)}))).kind == "meta"
    found = sniff(put(tmp_path / "model.bin", write({"model.norm.weight": (64,)})))
    assert (found.kind, found.variant, found.quantization, found.parameters) == ("torch", "", "F16", 64)


def test_an_empty_adapter_is_named(tmp_path: Path, write) -> None:
    assert sniff(put(tmp_path / "a" / "adapter_model.bin", write({}))).kind == "hollow"
    (tmp_path / "a" / "adapter_config.json").write_text("{}")
    assert "changes nothing" in sentence(tmp_path / "a")


def test_folders_around_them(tmp_path: Path) -> None:
    put(tmp_path / "checkpoint" / "pytorch_model.bin", torchfile.archive(LORA))
    assert "rank 8" in sentence(tmp_path / "checkpoint")
    put(tmp_path / "peft" / "adapter_model.bin", torchfile.archive(LORA))
    (tmp_path / "peft" / "adapter_config.json").write_text('{"r": 8}')
    assert sniff(tmp_path / "peft").kind == "hollow"  # every factor is zero
    effect = torchfile.archive(LORA).replace(bytes(64 * 8 * 2), b"\1" * (64 * 8 * 2))
    put(tmp_path / "peft" / "adapter_model.bin", effect)
    found = sniff(tmp_path / "peft")
    assert (found.kind, found.path, found.parameters) == ("adapter", tmp_path / "peft", 2 * 8 * 64)
    assert [file.name for file in found.files] == ["adapter_config.json", "adapter_model.bin"] and found.notices
    folder = tiny.folder(tmp_path / "hf")
    (folder / "model.safetensors").unlink()
    put(folder / "pytorch_model-00001-of-00002.bin", torchfile.archive({"a": (4,)}))
    put(folder / "pytorch_model-00002-of-00002.bin", torchfile.archive({"b": (4,)})[:-60])
    assert "cut short" in sentence(folder)


@pytest.mark.parametrize("keep", [0.1, 0.5, 0.95])
def test_a_file_that_is_cut_short(tmp_path: Path, write, keep: float) -> None:
    data = write({"w": (64, 64)})
    path = put(tmp_path / "a.bin", data[: int(len(data) * keep)])
    assert sniff(path).kind in ("truncated", "damaged")


def test_nothing_in_it_is_run(tmp_path: Path) -> None:
    harm = torchfile.harm(str(tmp_path / "harmed"))
    data = torchfile.archive({"w": (2,)}, pickle=torchfile.state({"w": (2,)}, more=harm))
    found = sniff(put(tmp_path / "a.bin", data))
    assert found.kind == "torch" and "posix.system" in found.notices[0]
    assert not (tmp_path / "harmed").exists()


@pytest.mark.parametrize(
    "pickle",
    [
        b"",
        b"\x80\x02",
        b"\x80\x02r\xff\xff\xff\x7f.",  # LONG_BINPUT with nothing on the stack
        b"\x80\x02}r\xff\xff\xff\x7f.",  # a memo of two thousand million places
        b"\x80\x02X\xff\xff\xff\xffabc.",
        b"\x80\x02(" + b"]" * 100_000 + b"t.",
        b"\x80\x02" + b"]\x85" * 30_000 + b".",
        b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x7f.",
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n)R.",
        b"\x80\x02J\x00\x00\x00\x00Q.",
        b"I" + b"9" * 100_000 + b"\n.",
        torchfile.state({"w": (2**20, 2**10)}),
    ],
)
def test_pickles_that_lie(tmp_path: Path, pickle: bytes) -> None:
    path = put(tmp_path / "a.bin", torchfile.archive({}, pickle=pickle))
    assert sniff(path).kind in ("damaged", "torch", "hollow")
    put(path, torchfile.MAGIC + b"\x80\x02M\xe9\x03." + b"\x80\x02}." + pickle)
    assert sniff(path).kind in ("damaged", "torch", "truncated", "hollow")


def test_archives_that_lie(tmp_path: Path) -> None:
    bomb = torchfile.archive({}, pickle=bytes(64 << 20), compression=zipfile.ZIP_DEFLATED)
    assert sniff(put(tmp_path / "bomb.bin", bomb)).kind == "damaged"
    plain = torchfile.archive({"w": (4,)})
    at = plain.rfind(b"PK\x05\x06")
    for length, start in ((0xFFFFFFFE, 0), (10, 0xFFFFFFFE), (0xFFFFFFFF, 0xFFFFFFFF), (0, 0)):
        lie = plain[: at + 12] + struct.pack("<II", length, start) + plain[at + 20 :]
        assert sniff(put(tmp_path / "lie.bin", lie)).kind in ("damaged", "truncated")
    lacking = torchfile.archive({}, pickle=torchfile.state({"w": (4,)}))
    assert sniff(put(tmp_path / "lacking.bin", lacking)).kind == "damaged"


@given(flips=st.lists(st.integers(0, 8 * 1500), min_size=1, max_size=6), which=st.booleans())
@settings(max_examples=300, deadline=None)
def test_flipped_bits_never_surprise(tmp_path_factory, flips: list[int], which: bool) -> None:
    data = bytearray((torchfile.archive if which else torchfile.old)(LORA))
    for flip in flips:
        data[flip // 8] ^= 1 << flip % 8
    path = tmp_path_factory.mktemp("flip") / "a.bin"
    path.write_bytes(data)
    assert sniff(path).kind
