"""The files of 2023 → GGUF: known values in every version's layout come out as they went in."""

import struct
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vigtui.core.errors import FormatError, UsageError, VigtuiError
from vigtui.registry import header
from vigtui.registry.check import check
from vigtui.registry.convert import legacy, names, params
from vigtui.registry.sniff import sniff

from .. import tiny

HIDDEN, LAYERS, HEADS, INNER, WORDS = 64, 2, 4, 128, 420
MAGICS = {0: b"lmgg", 1: b"fmgg"}
VERSIONS = ["ggml", "ggmf", "ggjt1", "ggjt2", "ggjt3"]
TYPES = {"F32": (0, 0), "F16": (1, 1), "Q4_0": (2, 2), "Q4_1": (3, 3), "Q5_0": (6, 8), "Q5_1": (7, 9), "Q8_0": (8, 7)}
"""Type → number of the tensor type, ftype."""
TOKENS = [1, 300, 17, 260, 399, 5, 42, 260, 3, 250]


def pack(values: np.ndarray, kind: str, version: str) -> tuple[bytes, np.ndarray]:
    """Quantize rows as a version did; give the bytes and the values that they mean."""
    if kind in ("F32", "F16"):
        data = values.astype({"F32": "<f4", "F16": "<f2"}[kind])
        return data.tobytes(), data.astype(np.float32)
    blocks = values.reshape(-1, 32).astype(np.float32)
    bits = {"Q4": 4, "Q5": 5, "Q8": 8}[kind[:2]]
    low, high = blocks.min(1, keepdims=True), blocks.max(1, keepdims=True)
    if kind.endswith("_1"):
        scale, least, zero = (high - low) / (2**bits - 1), low, 0
    else:
        scale, least, zero = np.abs(blocks).max(1, keepdims=True) / (2 ** (bits - 1) - 1), 0 * low, 2 ** (bits - 1)
    wide = version != "ggjt3" and kind in ("Q4_0", "Q4_1", "Q8_0")
    number = "<f4" if wide else "<f2"
    scale, least = scale.astype(number), least.astype(number)
    quants = np.rint((blocks - least) / scale.astype(np.float32)).clip(-zero, 2**bits - 1 - zero).astype(int)
    numbers = [scale, least] if kind.endswith("_1") else [scale]
    out = [np.concatenate(numbers, axis=1).view(np.uint8)]
    out += placed(quants + (zero if bits < 8 else 0), bits, version)
    return np.concatenate(out, axis=1).tobytes(), (quants * scale.astype(np.float32) + least).reshape(values.shape)


def placed(quants: np.ndarray, bits: int, version: str) -> list[np.ndarray]:
    """Lay out the numbers of a block: neighbours share a byte until ggjt 1, the halves of a block since."""
    if bits == 8:
        return [quants.astype(np.int8).view(np.uint8)]
    old = version in ("ggml", "ggmf", "ggjt1")
    pairs = (quants[:, 0::2], quants[:, 1::2]) if old else (quants[:, :16], quants[:, 16:])
    nibbles = (pairs[0] & 15 | (pairs[1] & 15) << 4).astype(np.uint8)
    if bits == 4:
        return [nibbles]
    fifth = (((quants >> 4) & 1) << np.arange(32)).sum(1, dtype=np.uint64).astype("<u4")
    return [fifth[:, None].view(np.uint8), nibbles]


@dataclass
class Model:
    """A LLaMA of 2023 by Meta's names, with the bytes of a file's tensors and the values that they mean."""

    version: str
    kind: str
    heads: int = HEADS
    kv_heads: int = HEADS
    words: list[bytes] = field(default_factory=list)
    values: dict[str, np.ndarray] = field(default_factory=dict)

    def tensors(self) -> dict[str, tuple[str, np.ndarray]]:
        random, kv = np.random.default_rng(7), HIDDEN * self.kv_heads // self.heads
        shapes = {"tok_embeddings": (WORDS, HIDDEN), "norm": (HIDDEN,), "output": (WORDS, HIDDEN)}
        for n in range(LAYERS):
            at = f"layers.{n}."
            shapes |= {f"{at}attention.wq": (HIDDEN, HIDDEN), f"{at}attention.wk": (kv, HIDDEN)}
            shapes |= {f"{at}attention.wv": (kv, HIDDEN), f"{at}attention.wo": (HIDDEN, HIDDEN)}
            shapes |= {f"{at}feed_forward.w1": (INNER, HIDDEN), f"{at}feed_forward.w2": (HIDDEN, INNER)}
            shapes |= {f"{at}feed_forward.w3": (INNER, HIDDEN), f"{at}attention_norm": (HIDDEN,)}
            shapes |= {f"{at}ffn_norm": (HIDDEN,)}
        found = {name: random.normal(len(s) == 1, 0.15, s).astype(np.float32) for name, s in shapes.items()}
        return {f"{name}.weight": ("F32" if w.ndim == 1 else self.kind, w) for name, w in found.items()}

    def head(self) -> bytes:
        magic = {"ggml": b"lmgg", "ggmf": b"fmgg"}.get(self.version, b"tjgg")
        number = {"ggml": b"", "ggmf": struct.pack("<I", 1)}.get(self.version)
        out = magic + (struct.pack("<I", int(self.version[-1])) if number is None else number)
        ftype = TYPES[self.kind][1]
        out += struct.pack("<7I", WORDS, HIDDEN, 32, self.heads, LAYERS, HIDDEN // self.heads, ftype)
        for id, word in enumerate(self.words or vocabulary()):
            score = b"" if self.version == "ggml" else struct.pack("<f", float(min(0, 259 - id)))
            out += struct.pack("<I", len(word)) + word + score
        return out

    def write(self, path: Path, parts: int = 1) -> Path:
        """Write the file, or its parts as convert-pth-to-ggml.py shared them."""
        for n in range(parts):
            out = bytearray(self.head())
            for name, (kind, values) in self.tensors().items():
                axis = 1 if name.endswith(("tok_embeddings.weight", "wo.weight", "w2.weight")) else 0
                share = values if values.ndim == 1 else np.split(values, parts, axis)[n]
                data, means = pack(share, kind, self.version)
                self.values.setdefault(name, np.zeros_like(values))
                if values.ndim == 1:
                    self.values[name] = means
                else:
                    np.split(self.values[name], parts, axis)[n][:] = means
                out += struct.pack("<3I", values.ndim, len(name), TYPES[kind][0])
                out += struct.pack(f"<{values.ndim}I", *share.shape[::-1]) + name.encode()
                out += b"" if self.version in ("ggml", "ggmf") else bytes(-len(out) % 32)
                out += data
            (path if n == 0 else path.with_name(f"{path.name}.{n}")).write_bytes(out)
        return path


def vocabulary() -> list[bytes]:
    """The tokens as llama.cpp wrote them: bytes as they are, spaces for SentencePiece's underscores."""
    import sentencepiece

    model = sentencepiece.SentencePieceProcessor(model_proto=tiny.sentencepiece_model())
    words = []
    for id in range(WORDS):
        if model.is_unknown(id):
            words.append(" \u2047 ".encode())
        elif model.is_control(id):
            words.append(b"")
        elif model.is_byte(id):
            words.append(bytes([int(model.id_to_piece(id)[3:-1], 16)]))
        else:
            words.append(model.id_to_piece(id).replace("\u2581", " ").encode())
    return words


def dequantized(path: Path) -> dict[str, np.ndarray]:
    import gguf

    return {
        tensor.name: gguf.quants.dequantize(tensor.data, tensor.tensor_type) for tensor in gguf.GGUFReader(path).tensors
    }


def renamed(name: str) -> str:
    """Hugging Face's name, for the reference in tiny.py."""
    for ours, theirs in {
        "tok_embeddings": "model.embed_tokens", "attention.wq": "self_attn.q_proj", "attention.wk": "self_attn.k_proj",
        "attention.wv": "self_attn.v_proj", "attention.wo": "self_attn.o_proj", "feed_forward.w1": "mlp.gate_proj",
        "feed_forward.w2": "mlp.down_proj", "feed_forward.w3": "mlp.up_proj", "ffn_norm": "post_attention_layernorm",
        "attention_norm": "input_layernorm", "output.": "lm_head.", "layers.": "model.layers.",
    }.items():  # fmt: skip
        name = name.replace(ours, theirs)
    return "model.norm.weight" if name == "norm.weight" else name


def halves(rows: np.ndarray, head: int = HIDDEN // HEADS) -> np.ndarray:
    return rows.reshape(-1, head // 2, 2, rows.shape[1]).swapaxes(1, 2).reshape(rows.shape)


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("version", VERSIONS)
def test_every_layout_reads_back(tmp_path: Path, version: str, kind: str) -> None:
    model = Model(version, kind)
    path = model.write(tmp_path / "llama-7b.bin")
    assert sniff(path).variant == "convertible"
    notices = legacy.convert(path, tmp_path / "out.gguf", eps=1e-5)
    found, places = dequantized(tmp_path / "out.gguf"), {place.meta: place.gguf for place in places_of(model)}
    assert found.keys() == set(places.values())
    rounded = version != "ggjt3" and kind in ("Q4_0", "Q4_1", "Q8_0")
    for name, values in model.values.items():
        if rounded:
            np.testing.assert_allclose(found[places[name]], values, rtol=1e-3, atol=5e-4)
        else:
            np.testing.assert_array_equal(found[places[name]], values)
    assert len(notices) == rounded and check(tmp_path / "out.gguf").quantization == kind


def places_of(model: Model) -> list[names.Place]:
    return names.places(params.Sizes(HIDDEN, LAYERS, HEADS, model.kv_heads, 1e-5, 1e4, INNER, WORDS))


@pytest.mark.parametrize(("version", "kv_heads"), [("ggml", 4), ("ggjt3", 4), ("ggjt3", 2)])
def test_llama_cpp_computes_what_the_weights_say(tmp_path: Path, version: str, kv_heads: int) -> None:
    import sentencepiece

    model = Model(version, "F32", kv_heads=kv_heads)
    legacy.convert(model.write(tmp_path / "a.bin"), tmp_path / "a.gguf", eps=1e-5, gqa=HEADS // kv_heads)
    described = tiny.config(num_key_value_heads=kv_heads, intermediate_size=INNER)
    weights = {renamed(name): halves(w) if name[-9:-7] in ("wq", "wk") else w for name, w in model.values.items()}
    reference = sentencepiece.SentencePieceProcessor(model_proto=tiny.sentencepiece_model())
    with tiny.load(tmp_path / "a.gguf") as loaded:
        assert tiny.divergence(loaded.logits(TOKENS), tiny.forward(weights, described, TOKENS)) < 1e-9
        for text in tiny.TEXTS:
            assert loaded.tokenize(text) == reference.encode(text), text
        assert loaded.tokenize("a", special=True)[0] == 1


@pytest.mark.parametrize("kind", ["F16", "Q4_0"])
def test_parts_are_joined(tmp_path: Path, kind: str) -> None:
    model = Model("ggmf", kind)
    path = model.write(tmp_path / "ggml-model.bin", parts=2)
    assert [file.name for file in sniff(path).files] == ["ggml-model.bin", "ggml-model.bin.1"]
    legacy.convert(path, tmp_path / "out.gguf")
    found = dequantized(tmp_path / "out.gguf")
    for place in places_of(model):
        np.testing.assert_allclose(found[place.gguf], model.values[place.meta], rtol=1e-3, atol=5e-4)
    with pytest.raises(FormatError) as caught:
        legacy.convert(tmp_path / "ggml-model.bin.1", tmp_path / "out.gguf")
    assert "part" in caught.value.message
    (tmp_path / "ggml-model.bin.1").unlink()
    with pytest.raises(FormatError) as caught:
        legacy.convert(path, tmp_path / "out.gguf")
    assert "ggml-model.bin.1" in caught.value.message


def written(path: Path) -> dict[str, object]:
    return dict(header.read(path).metadata)


def test_what_the_file_does_not_say(tmp_path: Path) -> None:
    path, target = Model("ggjt3", "F16").write(tmp_path / "a.bin"), tmp_path / "a.gguf"
    (notice,) = legacy.convert(path, target)
    assert "5e-06" in notice and "2048" in notice
    assert legacy.convert(path, target, eps=1e-6, context=512) == ()
    found = written(target)
    assert found["llama.attention.layer_norm_rms_epsilon"] == pytest.approx(1e-6)
    assert found["llama.context_length"] == 512 and found["general.file_type"] == 1
    assert (
        legacy.convert(
            path, target, metadata=tiny.folder(tmp_path / "hf", intermediate_size=INNER, num_key_value_heads=4)
        )
        == ()
    )
    assert written(target)["llama.context_length"] == 256
    (tmp_path / "meta").mkdir()
    params.write(tmp_path / "meta" / "params.json", params.Sizes(HIDDEN, LAYERS, HEADS, HEADS, 1e-6, 1e6, INNER, WORDS))
    assert legacy.convert(path, target, metadata=tmp_path / "meta") == ()
    assert written(target)["llama.rope.freq_base"] == pytest.approx(1e6)
    with pytest.raises(UsageError):
        legacy.convert(path, target, metadata=tiny.folder(tmp_path / "other"))
    for said in ({"gqa": 8}, {"gqa": 0}, {"eps": 0.0}, {"eps": float("nan")}, {"context": 0}):
        with pytest.raises(UsageError):
            legacy.convert(path, target, **said)
    with pytest.raises(UsageError):
        legacy.convert(path, path)


def test_the_vocabulary_of_the_metadata_wins(tmp_path: Path) -> None:
    model = Model("ggjt3", "F32", words=[b"x"] * WORDS)
    path = model.write(tmp_path / "a.bin")
    folder = tiny.folder(tmp_path / "hf", intermediate_size=INNER, num_key_value_heads=4)
    legacy.convert(path, tmp_path / "a.gguf", metadata=folder)
    legacy.convert(Model("ggjt3", "F32").write(tmp_path / "b.bin"), tmp_path / "b.gguf", metadata=folder)
    one, other = (list(header.tokens(header.read(tmp_path / name))) for name in ("a.gguf", "b.gguf"))
    assert one == other and one[:3] == [b"<unk>", b"<s>", b"</s>"]


def test_tokens_that_would_kill_llama_cpp(tmp_path: Path) -> None:
    words = vocabulary()
    words[300], words[301], words[302], words[303] = b"", b"same", b"same", b"\xff\xfe"
    legacy.convert(Model("ggjt3", "F32", words=words).write(tmp_path / "a.bin"), tmp_path / "a.gguf", eps=1e-5)
    check(tmp_path / "a.gguf")
    found = list(header.tokens(header.read(tmp_path / "a.gguf")))
    assert found[300:303] == [b"[PAD300]", b"same", b"[PAD302]"]
    with tiny.load(tmp_path / "a.gguf") as loaded:
        assert np.isfinite(loaded.logits(TOKENS)).all()


def refused(path: Path, *words: str) -> None:
    with pytest.raises(FormatError) as caught:
        legacy.convert(path, path.with_name("out.gguf"))
    assert all(word in caught.value.message for word in words), caught.value.message
    assert caught.value.hint
    assert not path.with_name("out.gguf").exists() and not list(path.parent.glob(".*"))


@pytest.mark.parametrize(("number", "size", "name"), [(4, 10 * 2, "Q4_2"), (5, 12 * 2, "Q4_3")])
def test_layouts_that_gguf_lacks(tmp_path: Path, number: int, size: int, name: str) -> None:
    data = Model("ggjt1", "Q4_0").write(tmp_path / "a.bin").read_bytes()
    title = b"layers.1.attention.wo.weight"
    at = data.index(title)
    out = bytearray(data[: at + len(title)])
    out[at - 12 : at - 8] = struct.pack("<I", number)
    out += bytes(-len(out) % 32) + bytes(HIDDEN * HIDDEN // 32 * size)
    path = tmp_path / "Vigogne-2-7B-Chat.ggmlv1.q4_2.bin"
    old = data[at + len(title) + -(at + len(title)) % 32 + HIDDEN * HIDDEN // 32 * 20 :]
    assert len(out) % 32 == (len(data) - len(old)) % 32 == 0
    path.write_bytes(out + old)
    refused(path, name)
    with pytest.raises(FormatError) as caught:
        legacy.convert(path, tmp_path / "out.gguf")
    assert "vigtui pull TheBloke/Vigogne-2-7B-Chat-GGUF" in caught.value.hint


def test_scales_of_an_older_layout(tmp_path: Path) -> None:
    """The first files of March 2023 had all scales of a row before its quants: as blocks they make no sense."""
    path = Model("ggml", "Q4_0").write(tmp_path / "a.bin")
    data, title = bytearray(path.read_bytes()), b"layers.1.attention.wo.weight"
    at = data.index(title) + len(title)
    data[at : at + 4] = struct.pack("<f", 1e30)
    path.write_bytes(data)
    refused(path, "layers.1.attention.wo.weight")


def test_other_files_are_named(tmp_path: Path) -> None:
    adapter = b"algg" + struct.pack("<3I", 1, 8, 16)
    (tmp_path / "ggml-adapter-model.bin").write_bytes(adapter)
    refused(tmp_path / "ggml-adapter-model.bin", "adapter")
    (tmp_path / "falcon.bin").write_bytes(b"ccgg" + bytes(64))
    refused(tmp_path / "falcon.bin", "GGCC")
    (tmp_path / "gpt2.bin").write_bytes(b"lmgg" + struct.pack("<7I", 50257, 2**31, 1, 1, 1, 1, 1) + bytes(64))
    refused(tmp_path / "gpt2.bin", "LLaMA")
    (tmp_path / "page.bin").write_bytes(b"<!doctype html>")
    refused(tmp_path / "page.bin", "ggml")
    with pytest.raises(FormatError):
        legacy.convert(tmp_path, tmp_path / "out.gguf")


def test_weights_that_do_not_fit(tmp_path: Path) -> None:
    data = Model("ggjt3", "F16").write(tmp_path / "a.bin").read_bytes()
    for old, new, word in [
        (b"layers.1.ffn_norm.weight", b"layers.9.ffn_norm.weight", "layers.1.ffn_norm"),
        (b"layers.0.attention.wk.weight", b"layers.0.attention.wz.weight", "heads"),
        (
            struct.pack("<2I", HIDDEN, INNER) + b"layers.1.feed_forward.w1",
            struct.pack("<2I", INNER, HIDDEN) + b"layers.1.feed_forward.w1",
            "w1",
        ),
    ]:
        assert old in data
        (tmp_path / "b.bin").write_bytes(data.replace(old, new))
        refused(tmp_path / "b.bin", word)


@given(flips=st.lists(st.integers(0, 8 * 24_000), min_size=1, max_size=5), cut=st.integers(4, 200_000))
@settings(max_examples=100, deadline=None)
def test_damage_is_refused_or_harmless(tmp_path_factory: pytest.TempPathFactory, flips: list[int], cut: int) -> None:
    folder = tmp_path_factory.getbasetemp() / "damage"
    folder.mkdir(exist_ok=True)
    if not (folder / "whole.bin").exists():
        Model("ggjt1", "Q4_0").write(folder / "whole.bin")
    data = bytearray((folder / "whole.bin").read_bytes())
    for flip in flips:
        data[4 + flip // 8] ^= 1 << flip % 8
    (folder / "a.bin").write_bytes(data[:cut] if cut < 100_000 else data)
    try:
        legacy.convert(folder / "a.bin", folder / "out.gguf", eps=1e-5)
    except VigtuiError as error:
        assert error.hint
    else:
        assert sniff(folder / "out.gguf").kind == "gguf"
