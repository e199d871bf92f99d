"""The files of 2023, written in each version's layout: named, measured, and sent to the right next step."""

import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vigtui.core.errors import FormatError
from vigtui.registry import ggml
from vigtui.registry.check import check
from vigtui.registry.sniff import sniff

WORDS, WIDTH, LAYERS = 40, 32, 2
BLOCKS = {"F16": (1, 1, 2), "Q4_0": (2, 32, 18), "Q4_2": (4, 16, 10), "Q5_0": (6, 32, 22)}
FTYPES = {"F16": 1, "Q4_0": 2, "Q4_2": 5, "Q5_0": 8}


def legacy(magic: bytes, version: int, quantization: str = "Q4_0", tensors: int = 9 * LAYERS + 3) -> bytes:
    """A LLaMA of 32 dimensions."""
    plain = magic in (b"lmgg", b"fmgg")
    out = magic + (b"" if magic == b"lmgg" else struct.pack("<I", version))
    out += struct.pack("<7I", WORDS, WIDTH, 256, 4, LAYERS, 8, FTYPES[quantization])
    for n in range(WORDS):
        word = f"w{n}".encode()
        out += struct.pack("<I", len(word)) + word + (b"" if magic == b"lmgg" else struct.pack("<f", -n))
    kind, elements, width = BLOCKS[quantization]
    if kind == 2 and (plain or version < 3):
        width = 20
    for n in range(tensors):
        name = f"layers.{n}.weight".encode()
        out += struct.pack("<5I", 2, len(name), kind, WIDTH, WIDTH) + name
        out += b"" if plain else bytes(-len(out) % 32)
        out += bytes(WIDTH * WIDTH // elements * width)
    return out


@pytest.mark.parametrize(
    ("magic", "version", "quantization", "title", "variant"),
    [
        (b"lmgg", 0, "F16", "GGML", "convertible"),
        (b"lmgg", 0, "Q4_0", "GGML", "convertible"),
        (b"fmgg", 1, "Q4_0", "GGMF v1", "convertible"),
        (b"tjgg", 1, "Q4_2", "GGJT v1", ""),
        (b"tjgg", 1, "Q5_0", "GGJT v1", "convertible"),
        (b"tjgg", 2, "Q4_0", "GGJT v2", "convertible"),
        (b"tjgg", 2, "Q5_0", "GGJT v2", "convertible"),
        (b"tjgg", 3, "Q4_0", "GGJT v3", "convertible"),
    ],
)
def test_every_version(tmp_path: Path, magic: bytes, version: int, quantization: str, title: str, variant: str) -> None:
    path = tmp_path / "wizard-vicuna-13B.ggml.q4.bin"
    path.write_bytes(legacy(magic, version, quantization))
    found = sniff(path)
    assert (found.kind, found.detail, found.quantization, found.variant) == ("ggml", title, quantization, variant)
    assert found.expected == found.size and found.parameters == (9 * LAYERS + 3) * WIDTH * WIDTH
    with pytest.raises(FormatError) as caught:
        check(path)
    assert f"{title} {quantization}" in caught.value.message
    if variant:
        assert "vigtui convert" in caught.value.hint
    else:
        assert "TheBloke/wizard-vicuna-13B-GGUF" in caught.value.hint or "GGUF build" in caught.value.hint


def test_the_catalogue_names_the_build_to_pull_instead(tmp_path: Path) -> None:
    path = tmp_path / "Vigogne-2-7B-Chat.ggmlv1.q4_2.bin"
    path.write_bytes(legacy(b"tjgg", 1, "Q4_2"))
    with pytest.raises(FormatError) as caught:
        check(path)
    assert "vigtui pull TheBloke/Vigogne-2-7B-Chat-GGUF" in caught.value.hint


def test_a_download_that_stopped(tmp_path: Path) -> None:
    path, data = tmp_path / "a.bin", legacy(b"tjgg", 3)
    for length in (200, len(data) // 2, len(data) - 1, len(legacy(b"tjgg", 3, tensors=5))):
        path.write_bytes(data[:length])
        assert sniff(path).kind == "truncated"
    path = tmp_path / "a.bin.1"
    path.write_bytes(legacy(b"tjgg", 3, tensors=5))
    assert sniff(path).kind == "ggml"


def test_adapters_sessions_and_other_families(tmp_path: Path) -> None:
    adapter = b"algg" + struct.pack("<3I", 1, 8, 16)
    name = b"layers.0.attention.wq.weight.loraA"
    adapter += struct.pack("<5I", 2, len(name), 0, 8, 4) + name
    adapter += bytes(-len(adapter) % 32) + bytes(128)
    (tmp_path / "ggml-adapter-model.bin").write_bytes(adapter)
    assert ggml.read(tmp_path / "ggml-adapter-model.bin").rank == 8
    with pytest.raises(FormatError) as caught:
        check(tmp_path / "ggml-adapter-model.bin")
    assert "PEFT" in caught.value.hint
    for start in (b"nsgg", b"ccgg", b"lmgg" + struct.pack("<7I", 50257, 2**31, 1, 1, 1, 1, 1)):
        (tmp_path / "other.bin").write_bytes(start + bytes(64))
        assert sniff(tmp_path / "other.bin").kind == "ggml"


@given(flips=st.lists(st.integers(0, 8 * 900), min_size=1, max_size=5), cut=st.integers(4, 13_000))
@settings(max_examples=300, deadline=None)
def test_damage_never_surprises(tmp_path_factory, flips: list[int], cut: int) -> None:
    data = bytearray(legacy(b"tjgg", 3))
    for flip in flips:
        data[4 + flip // 8] ^= 1 << flip % 8
    path = tmp_path_factory.mktemp("flip") / "a.bin"
    path.write_bytes(data[:cut])
    assert sniff(path).kind in ("ggml", "truncated", "damaged")
