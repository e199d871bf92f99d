"""Hugging Face Llama → GGUF: what llama.cpp computes from the converted file is what the weights say."""

import errno
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file
from vigtui.core.errors import CapacityError, FormatError, UsageError
from vigtui.registry import header
from vigtui.registry.convert import stream
from vigtui.registry.convert.model import FILE_TYPES, convert

from .. import tiny

TOKENS = [1, 300, 17, 260, 399, 5, 42, 260, 3, 250]


def converted(tmp_path: Path, type: str = "f32", **changes: object) -> Path:
    source = tiny.folder(tmp_path / "tiny", **changes)
    convert(source, tmp_path / "tiny.gguf", type)
    return tmp_path / "tiny.gguf"


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"num_key_value_heads": 4},
        {"num_key_value_heads": 1, "rope_theta": 500000.0},
        {"tie_word_embeddings": True},
        {"head_dim": 32},
        {"rope_scaling": {"type": "linear", "factor": 4.0}},
    ],
    ids=["grouped", "all-heads", "one-kv", "tied", "wide-heads", "linear-rope"],
)
def test_logits_equal_the_reference(tmp_path: Path, changes: dict) -> None:
    path = converted(tmp_path, **changes)
    described = tiny.config(**changes)
    with tiny.load(path) as model:
        found = model.logits(TOKENS)
    reference = tiny.forward(tiny.weights(described), described, TOKENS)
    assert np.abs(found - reference).max() < 2e-4
    assert tiny.divergence(found, reference) < 1e-9


def test_attention_biases_are_kept(tmp_path: Path) -> None:
    described = tiny.config(attention_bias=True)
    weights = tiny.weights(described, bias=True)
    path = converted(tmp_path, tensors=weights, attention_bias=True)
    with tiny.load(path) as model:
        assert tiny.divergence(model.logits(TOKENS), tiny.forward(weights, described, TOKENS)) < 1e-9


def test_shards_and_bfloat16_and_half(tmp_path: Path) -> None:
    described, weights = tiny.config(), tiny.weights(tiny.config())
    source = tiny.folder(tmp_path / "tiny")
    (source / "model.safetensors").unlink()
    names = sorted(weights)
    first, second = names[: len(names) // 2], names[len(names) // 2 :]
    tiny.write_safetensors(source / "a.safetensors", {n: ("BF16", tiny.bfloat16(weights[n])) for n in first})
    save_file({name: weights[name].astype(np.float16) for name in second}, source / "b.safetensors")
    weight_map = {name: "a.safetensors" for name in first} | {name: "b.safetensors" for name in second}
    (source / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    convert(source, tmp_path / "out.gguf", "f32")
    rounded = {n: (tiny.bfloat16(weights[n]).astype(np.uint32) << 16).view(np.float32) for n in first}
    rounded |= {name: weights[name].astype(np.float16).astype(np.float32) for name in second}
    with tiny.load(tmp_path / "out.gguf") as model:
        assert tiny.divergence(model.logits(TOKENS), tiny.forward(rounded, described, TOKENS)) < 1e-9


def test_small_pieces_give_the_same_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = converted(tmp_path).read_bytes()
    monkeypatch.setattr(stream, "LIMIT", 1000)
    convert(tmp_path / "tiny", tmp_path / "tiny.gguf", "f32")
    assert (tmp_path / "tiny.gguf").read_bytes() == whole


@pytest.mark.parametrize(("type", "limit"), [("f16", 1e-5), ("q8_0", 1e-2)])
def test_smaller_types_stay_close(tmp_path: Path, type: str, limit: float) -> None:
    path = converted(tmp_path, type)
    described = tiny.config()
    with tiny.load(path) as model:
        found = model.logits(TOKENS)
        assert model.text("general.file_type") == str(FILE_TYPES[type])
    assert tiny.divergence(found, tiny.forward(tiny.weights(described), described, TOKENS)) < limit
    kinds = {tensor.name: header.TYPES[tensor.kind][0] for tensor in header.read(path).tensors}
    assert kinds["blk.0.attn_norm.weight"] == "F32"
    assert kinds["blk.1.ffn_down.weight"] == type.upper()


def test_rows_that_q8_0_cannot_hold_are_f16(tmp_path: Path) -> None:
    path = converted(tmp_path, "q8_0", intermediate_size=80)
    kinds = {tensor.name: header.TYPES[tensor.kind][0] for tensor in header.read(path).tensors}
    assert kinds["blk.0.ffn_down.weight"] == "F16"
    assert kinds["blk.0.ffn_up.weight"] == "Q8_0"
    with tiny.load(path) as model:
        assert np.isfinite(model.logits(TOKENS)).all()


@pytest.mark.parametrize("prefix", [True, False])
def test_tokenization_equals_sentencepiece(tmp_path: Path, prefix: bool) -> None:
    import sentencepiece

    model_bytes = tiny.sentencepiece_model(add_dummy_prefix=prefix)
    path = converted(tmp_path, tokenizer=model_bytes)
    reference = sentencepiece.SentencePieceProcessor(model_proto=model_bytes)
    with tiny.load(path) as model:
        for text in [*tiny.TEXTS, *tiny.SENTENCES]:
            assert model.tokenize(text) == reference.encode(text), text
        assert model.tokenize("Bonjour", special=True) == [1, *reference.encode("Bonjour")]


def test_special_tokens_and_template(tmp_path: Path) -> None:
    settings = {
        "bos_token": {"content": "<s>"},
        "eos_token": "<|end|>",
        "pad_token": "<pad>",
        "add_bos_token": False,
        "chat_template": [{"name": "default", "template": "{{ messages }}"}],
        "added_tokens_decoder": {
            "420": {"content": "<|end|>", "special": True},
            "421": {"content": "<pad>", "special": True},
            "422": {"content": "plain▁words", "special": False},
        },
    }
    path = converted(tmp_path, vocab_size=424, settings=settings)
    metadata = header.read(path).metadata
    assert metadata["tokenizer.ggml.eos_token_id"] == 420
    assert metadata["tokenizer.ggml.padding_token_id"] == 421
    assert metadata["tokenizer.ggml.add_bos_token"] is False
    assert metadata["tokenizer.chat_template"] == "{{ messages }}"
    assert metadata["llama.vocab_size"] == 424
    words = list(header.tokens(header.read(path)))
    assert words[422:] == [b"plain words", b"[PAD423]"]
    with tiny.load(path) as model:
        assert model.tokenize("a<|end|>", special=True)[-1] == 420
        assert 420 not in model.tokenize("a<|end|>")


def test_token_types_are_those_of_the_tokenizer(tmp_path: Path) -> None:
    import gguf
    import sentencepiece

    field = gguf.GGUFReader(converted(tmp_path)).get_field("tokenizer.ggml.token_type")
    assert field is not None
    reference = sentencepiece.SentencePieceProcessor(model_proto=tiny.sentencepiece_model())
    kinds = ((reference.is_unknown, 2), (reference.is_control, 3), (reference.is_byte, 6))
    expected = [next((n for test, n in kinds if test(id)), 1) for id in range(420)]
    assert field.contents() == expected
    assert expected[:3] == [2, 3, 3] and expected.count(6) == 256


def test_a_template_file_wins(tmp_path: Path) -> None:
    source = tiny.folder(tmp_path / "tiny", settings={"chat_template": "old"})
    (source / "chat_template.jinja").write_text("new é", encoding="utf-8")
    convert(source, tmp_path / "out.gguf")
    assert header.read(tmp_path / "out.gguf").metadata["tokenizer.chat_template"] == "new é"


def test_a_tokenizer_that_normalizes_is_told(tmp_path: Path) -> None:
    source = tiny.folder(tmp_path / "tiny", tokenizer=tiny.sentencepiece_model(remove_extra_whitespaces=True))
    assert len(convert(source, tmp_path / "out.gguf")) == 1


def refused(source: Path, target: Path, *words: str, type: str = "f16") -> None:
    with pytest.raises(FormatError) as caught:
        convert(source, target, type)
    assert all(word in caught.value.message for word in words), caught.value.message
    assert caught.value.hint
    assert list(target.parent.glob("*.gguf")) == []
    assert list(target.parent.glob(".*")) == []


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"architectures": ["GPTNeoXForCausalLM"]}, "GPTNeoXForCausalLM"),
        ({"architectures": None, "model_type": "gpt_neox"}, "gpt_neox"),
        ({"rope_scaling": {"rope_type": "longrope", "factor": 8.0}}, "longrope"),
        ({"rope_parameters": {"rope_type": "yarn", "factor": 0.0}}, "factor"),
        ({"rope_parameters": {"rope_type": "yarn", "factor": 2.0, "truncate": False}}, "yarn"),
        ({"partial_rotary_factor": 0.5}, "rotated"),
        ({"quantization_config": {"bits": 4}}, "quantized"),
        ({"hidden_act": "gelu"}, "gelu"),
        ({"rms_norm_eps": 0.0}, "rms_norm_eps"),
        ({"rms_norm_eps": float("nan")}, "rms_norm_eps"),
        ({"mlp_bias": True}, "bias"),
        ({"attention_bias": True}, "bias"),
        ({"hidden_size": "64"}, "hidden_size"),
        ({"num_hidden_layers": 0}, "num_hidden_layers"),
        ({"num_key_value_heads": 3}, "heads"),
        ({"num_hidden_layers": 3}, "model.layers.2."),
        ({"num_hidden_layers": 1}, "model.layers.1."),
        ({"intermediate_size": 128}, "(128, 64)"),
        ({"rope_theta": "much"}, "rope"),
        ({"rms_norm_eps": None}, "rms_norm_eps"),
    ],
)
def test_unsupported_configurations_are_named(tmp_path: Path, changes: dict, word: str) -> None:
    source = tiny.folder(tmp_path / "tiny", tensors=tiny.weights(tiny.config()), **changes)
    refused(source, tmp_path / "out.gguf", word)


def test_missing_parts_are_named(tmp_path: Path) -> None:
    for name in ("config.json", "tokenizer.model", "model.safetensors"):
        source = tiny.folder(tmp_path / name.replace(".", "-"))
        (source / name).unlink()
        refused(source, tmp_path / "out.gguf", name)


def test_missing_output_weights_are_named(tmp_path: Path) -> None:
    weights = tiny.weights(tiny.config())
    del weights["lm_head.weight"]
    refused(tiny.folder(tmp_path / "tiny", tensors=weights), tmp_path / "out.gguf", "lm_head.weight")


def test_a_unigram_tokenizer_is_refused(tmp_path: Path) -> None:
    unigram = tiny.sentencepiece_model("unigram", 400)
    refused(tiny.folder(tmp_path / "tiny", tokenizer=unigram), tmp_path / "out.gguf", "BPE")


def test_more_tokens_than_rows_are_refused(tmp_path: Path) -> None:
    source = tiny.folder(tmp_path / "tiny", vocab_size=400)
    refused(source, tmp_path / "out.gguf", "420", "400")


def test_equal_tokens_are_refused(tmp_path: Path) -> None:
    settings = {"added_tokens_decoder": {"420": {"content": "<s>", "special": True}}}
    refused(tiny.folder(tmp_path / "t", vocab_size=421, settings=settings), tmp_path / "out.gguf", "420")


@pytest.mark.parametrize("value", [np.nan, np.inf, 7e4])
def test_values_that_do_not_fit_leave_no_file(tmp_path: Path, value: float) -> None:
    weights = tiny.weights(tiny.config())
    weights["model.layers.1.mlp.down_proj.weight"][3, 3] = value
    refused(tiny.folder(tmp_path / "tiny", tensors=weights), tmp_path / "out.gguf", "blk.1.ffn_down.weight")


@pytest.mark.parametrize("keep", [0, 7, 40, 3000, -1])
def test_cut_weights_are_refused(tmp_path: Path, keep: int) -> None:
    source = tiny.folder(tmp_path / "tiny")
    path = source / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    refused(source, tmp_path / "out.gguf", "model.safetensors")


@pytest.mark.parametrize("at", range(0, 5600, 400))
def test_a_cut_tokenizer_is_refused(tmp_path: Path, at: int) -> None:
    source = tiny.folder(tmp_path / "tiny", tokenizer=tiny.sentencepiece_model()[: at + 3])
    refused(source, tmp_path / "out.gguf")


def test_shards_outside_the_folder_are_refused(tmp_path: Path) -> None:
    source = tiny.folder(tmp_path / "tiny")
    for name in ("../tiny/model.safetensors", "/etc/passwd", ""):
        listing = source / "model.safetensors.index.json"
        listing.write_text(json.dumps({"weight_map": {"lm_head.weight": name}}))
        refused(source, tmp_path / "out.gguf", "index.json")


def test_an_existing_file_stays_when_the_conversion_fails(tmp_path: Path) -> None:
    target = converted(tmp_path)
    before = target.read_bytes()
    (tmp_path / "tiny" / "model.safetensors").write_bytes(b"")
    with pytest.raises(FormatError):
        convert(tmp_path / "tiny", target)
    assert target.read_bytes() == before


def test_a_killed_conversion_leaves_nothing_half_made(tmp_path: Path) -> None:
    source, target = tiny.folder(tmp_path / "tiny"), tmp_path / "out.gguf"
    code = (
        "import os, pathlib, sys; from vigtui.registry.convert.model import convert;"
        "convert(*map(pathlib.Path, sys.argv[1:]),"
        " progress=lambda _stage, done, _total: done == 10 and os.kill(os.getpid(), 9))"
    )
    command = [sys.executable, "-c", code, str(source), str(target)]
    assert subprocess.run(command, check=False).returncode == -9
    assert not target.exists()
    convert(source, target)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.gguf", "tiny"]


def test_a_full_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tiny.folder(tmp_path / "tiny")

    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(CapacityError):
        convert(source, tmp_path / "out.gguf")
    assert [path.name for path in tmp_path.iterdir()] == ["tiny"]


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("vocabulary")
    convert(tiny.folder(folder / "tiny"), folder / "tiny.gguf")
    with tiny.load(folder / "tiny.gguf") as model:
        yield model


@given(text=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\u2581"), max_size=60))
@settings(max_examples=300, deadline=None)
def test_any_text_is_tokenized_alike(vocabulary: tiny.Loaded, text: str) -> None:
    import sentencepiece

    reference = sentencepiece.SentencePieceProcessor(model_proto=tiny.sentencepiece_model())
    assert vocabulary.tokenize(text) == reference.encode(text)


def test_an_unknown_type_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        convert(tiny.folder(tmp_path / "tiny"), tmp_path / "out.gguf", "q2_k")


def test_progress_reaches_the_end(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    source = tiny.folder(tmp_path / "tiny")
    convert(source, tmp_path / "out.gguf", progress=lambda _stage, done, total: seen.append((done, total)))
    assert seen[0] == (0, 21) and seen[-1] == (21, 21)
