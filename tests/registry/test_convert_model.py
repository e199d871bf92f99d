"""The door of the conversion: what it makes of every spelling of a model, and what it refuses."""

import json
import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from vigtui.core.errors import FormatError, UsageError
from vigtui.registry import header
from vigtui.registry.convert.model import convert

from .. import tiny
from . import families

TOKENS = [1, 300, 17, 260, 399, 5, 42, 260, 3, 250]
SMALL = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
FALCON = {**SMALL, "eos_token_id": 0, "bos_token_id": 0}
BLOOM = {"hidden_size": 64, "n_layer": 2, "n_head": 4, "eos_token_id": 0}
MPT = {"d_model": 64, "n_layers": 2, "n_heads": 4, "eos_token_id": 0}
QWEN2 = {**SMALL, "intermediate_size": 96, "num_key_value_heads": 2, "eos_token_id": 0}
PLAIN = {"falcon": FALCON, "bloom": BLOOM, "mpt": MPT, "qwen2": QWEN2, "mistral": {**QWEN2, "sliding_window": 64}}
CUT = {"falcon": "falcon", "bloom": "bloom", "qwen2": "qwen2"}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Give the folder of a random model of a type, made once; a second call with changes makes another."""
    folders: dict[str, Path] = {}

    def make(kind: str, **changes: Any) -> Path:
        key = json.dumps([kind, changes])
        if key not in folders:
            path = folders[key] = tmp_path_factory.mktemp(kind) / "model"
            families.model(path, kind, **{**PLAIN[kind], **changes})
            families.write_tokenizer(path, families.tokenizer(CUT.get(kind, "gpt-2")), eos_token="<|endoftext|>")
        return folders[key]

    return make


def again(source: Path, target: Path, **changes: Any) -> Path:
    """Copy the folder to `target`/model with other settings in its config.json; None drops one."""
    path = target / "model"
    path.mkdir(parents=True)
    for file in source.iterdir():
        os.link(file, path / file.name)
    described = {**json.loads((source / "config.json").read_text()), **changes}
    (path / "config.json").unlink()
    (path / "config.json").write_text(json.dumps({k: v for k, v in described.items() if v is not None}))
    return path


def renamed(path: Path, change: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]) -> Path:
    tensors = load_file(path / "model.safetensors")
    (path / "model.safetensors").unlink()
    save_file(change(tensors), path / "model.safetensors")
    return path


def bytes_of(source: Path, target: Path, type: str = "f32") -> bytes:
    convert(source, target, type)
    return target.read_bytes()


def refused(source: Path, target: Path, *words: str, type: str = "f16") -> None:
    with pytest.raises(FormatError) as caught:
        convert(source, target, type)
    assert all(word in caught.value.message for word in words), caught.value.message
    assert caught.value.hint
    assert not target.exists() and list(target.parent.glob(".*")) == []


# Spellings


def test_the_falcons_of_2023_give_the_same_file(tmp_path: Path, made: Callable[..., Path]) -> None:
    names = {"num_hidden_layers": None, "num_attention_heads": None, "n_layer": 2, "n_head": 4, "rope_parameters": None}
    names |= {"architectures": ["RWForCausalLM"], "num_ln_in_parallel_attn": None, "new_decoder_architecture": None}
    small = again(made("falcon"), tmp_path / "a", **names, model_type="RefinedWebModel", num_kv_heads=None)
    assert bytes_of(small, tmp_path / "a.gguf") == bytes_of(made("falcon"), tmp_path / "b.gguf")
    large = made("falcon", new_decoder_architecture=True, num_kv_heads=2)
    old = again(large, tmp_path / "c", **names, model_type="RefinedWeb", n_head_kv=2, num_kv_heads=None)
    assert bytes_of(old, tmp_path / "c.gguf") == bytes_of(large, tmp_path / "d.gguf")


def test_a_bloom_without_its_outermost_module_gives_the_same_file(tmp_path: Path, made: Callable[..., Path]) -> None:
    path = again(made("bloom"), tmp_path / "a", architectures=["BloomModel"])
    renamed(path, lambda all: {name.removeprefix("transformer."): value for name, value in all.items()})
    assert bytes_of(path, tmp_path / "a.gguf") == bytes_of(made("bloom"), tmp_path / "b.gguf")


@pytest.mark.parametrize("kind", ["falcon", "bloom", "mpt"])
def test_an_output_that_repeats_the_embedding_is_left_out(tmp_path: Path, made: Callable[..., Path], kind: str) -> None:
    path = again(made(kind), tmp_path / "a", tie_word_embeddings=None)

    def repeat(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        [embedding] = [value for value in tensors.values() if value.shape == (480, 64)]
        return {**tensors, "lm_head.weight": embedding}

    assert bytes_of(renamed(path, repeat), tmp_path / "a.gguf") == bytes_of(made(kind), tmp_path / "b.gguf")


def test_pytorch_weights_give_the_same_file(tmp_path: Path, made: Callable[..., Path]) -> None:
    import torch

    path = again(made("qwen2"), tmp_path / "a")
    tensors = {name: torch.from_numpy(value) for name, value in load_file(path / "model.safetensors").items()}
    (path / "model.safetensors").unlink()
    torch.save(tensors, path / "pytorch_model.bin")
    assert bytes_of(path, tmp_path / "a.gguf") == bytes_of(made("qwen2"), tmp_path / "b.gguf")


def test_a_model_type_alone_is_enough(tmp_path: Path, made: Callable[..., Path]) -> None:
    for kind in PLAIN:
        path = again(made(kind), tmp_path / kind, architectures=None)
        assert bytes_of(path, tmp_path / "a.gguf") == bytes_of(made(kind), tmp_path / "b.gguf")


# Types


def written(path: Path, name: str) -> np.ndarray:
    import gguf

    [tensor] = [tensor for tensor in gguf.GGUFReader(path).tensors if tensor.name == name]
    return np.array(tensor.data)


def stored(tmp_path: Path, dtype: str, value: float | None = None) -> tuple[Path, dict[str, np.ndarray]]:
    """A Llama whose weights are stored as F16 or BF16, one of them `value`; and their bits."""
    weights = tiny.weights(tiny.config())
    if value is not None:
        weights["model.layers.1.mlp.down_proj.weight"][3, 3] = value
    bits = {name: w.astype(np.float16) if dtype == "F16" else tiny.bfloat16(w) for name, w in weights.items()}
    source = tiny.folder(tmp_path / "hf")
    tiny.write_safetensors(source / "model.safetensors", {name: (dtype, array) for name, array in bits.items()})
    return source, bits


@pytest.mark.parametrize("dtype", ["F16", "BF16"])
def test_weights_of_the_wanted_type_keep_their_bits(tmp_path: Path, dtype: str) -> None:
    source, bits = stored(tmp_path, dtype)
    convert(source, tmp_path / "out.gguf", dtype.lower())
    found = written(tmp_path / "out.gguf", "blk.1.ffn_down.weight").view(np.uint16).reshape(64, 96)
    assert np.array_equal(found, bits["model.layers.1.mlp.down_proj.weight"].view(np.uint16))
    found = written(tmp_path / "out.gguf", "blk.0.attn_k.weight").view(np.uint16).reshape(2, 8, 2, 64)
    expected = bits["model.layers.0.self_attn.k_proj.weight"].view(np.uint16).reshape(2, 2, 8, 64)
    assert np.array_equal(found, expected.swapaxes(1, 2))
    kinds = {tensor.name: header.TYPES[tensor.kind][0] for tensor in header.read(tmp_path / "out.gguf").tensors}
    assert (kinds["token_embd.weight"], kinds["output_norm.weight"]) == (dtype, "F32")


@pytest.mark.parametrize(("dtype", "type"), [("F16", "bf16"), ("BF16", "f16"), ("BF16", "f32"), ("BF16", "q8_0")])
def test_every_type_from_every_type(tmp_path: Path, dtype: str, type: str) -> None:
    source, bits = stored(tmp_path, dtype)
    convert(source, tmp_path / "out.gguf", type)
    exact = {name: a.astype(np.float32) if dtype == "F16" else (a.astype(np.uint32) << 16).view(np.float32)
             for name, a in bits.items()}  # fmt: skip
    with tiny.load(tmp_path / "out.gguf") as model:
        found = model.logits(TOKENS)
    limit = {"bf16": 1e-3, "f16": 1e-4, "f32": 1e-9, "q8_0": 1e-2}[type]
    assert tiny.divergence(found, tiny.forward(exact, tiny.config(), TOKENS)) < limit


@pytest.mark.parametrize("value", [np.nan, -np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("type", ["f32", "f16", "bf16", "q8_0"])
@pytest.mark.parametrize("dtype", ["F16", "BF16"])
def test_what_is_no_number_is_found_in_every_type(tmp_path: Path, dtype: str, type: str, value: float) -> None:
    source, _bits = stored(tmp_path, dtype, value)
    refused(source, tmp_path / "out.gguf", "blk.1.ffn_down.weight", type=type)


def test_the_largest_numbers_are_kept(tmp_path: Path) -> None:
    source, _bits = stored(tmp_path, "F16", -65504.0)
    convert(source, tmp_path / "out.gguf")
    assert written(tmp_path / "out.gguf", "blk.1.ffn_down.weight").min() == -65504.0


def test_memory_stays_small(tmp_path: Path) -> None:
    wide = {"hidden_size": 512, "num_hidden_layers": 1, "intermediate_size": 32768, "vocab_size": 420}
    weights = tiny.weights(tiny.config(**wide), scale=0.01)
    source = tiny.folder(tmp_path / "wide", {n: w.astype(np.float16) for n, w in weights.items()}, **wide)
    del weights
    tracemalloc.start()
    convert(source, tmp_path / "out.gguf", "f16")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (source / "model.safetensors").stat().st_size > 96 << 20 and peak < 24 << 20


# Refusals


@pytest.mark.parametrize(
    ("kind", "changes", "word"),
    [
        ("falcon", {"alibi": True}, "alibi"),
        ("falcon", {"bias": True}, "bias"),
        ("falcon", {"parallel_attn": False}, "parallel_attn"),
        ("falcon", {"activation": "relu"}, "relu"),
        ("falcon", {"num_attention_heads": 3}, "heads"),
        ("falcon", {"multi_query": False}, "query_key_value"),
        ("falcon", {"new_decoder_architecture": True, "num_kv_heads": 2}, "ln_mlp"),
        ("falcon", {"rope_parameters": {"rope_type": "llama3", "factor": 8.0}}, "llama3"),
        ("mpt", {"attn_config": {"softmax_scale": 0.1}}, "softmax_scale"),
        ("mpt", {"attn_config": {"qk_ln": True}}, "qk_ln"),
        ("mpt", {"attn_config": {"alibi": False}}, "alibi"),
        ("mpt", {"attn_config": {"attn_type": "multiquery_attention"}}, "multiquery_attention"),
        ("mpt", {"logit_scale": 2.0}, "logit_scale"),
        ("mpt", {"expansion_ratio": 3}, "ffn.up_proj"),
        ("bloom", {"apply_residual_connection_post_layernorm": True}, "apply_residual"),
        ("bloom", {"n_head": 5}, "heads"),
        ("bloom", {"tie_word_embeddings": False}, "lm_head.weight"),
        ("qwen2", {"rope_parameters": {"rope_type": "llama3", "factor": 8.0}}, "llama3"),
        ("qwen2", {"head_dim": 32}, "heads"),
        ("qwen2", {"rms_norm_eps": 1e308}, "rms_norm_eps"),
        ("qwen2", {"max_position_embeddings": 1 << 40}, "max_position_embeddings"),
        (
            "qwen2",
            {"rope_parameters": {"rope_type": "yarn", "factor": 2, "original_max_position_embeddings": 1e20}},
            "original_max_position_embeddings",
        ),
        ("mistral", {"architectures": True, "model_type": {}}, "?"),
        ("qwen2", {"architectures": ["Qwen2MoeForCausalLM"]}, "Qwen2MoeForCausalLM"),
        ("qwen2", {"architectures": "Qwen2ForCausalLM", "model_type": ["x"]}, "['x']"),
        ("mistral", {"architectures": ["MistralForSequenceClassification"]}, "MistralForSequenceClassification"),
        ("mistral", {"quantization_config": {"quant_method": "awq"}}, "quantized"),
    ],
)
def test_what_llama_cpp_cannot_hold_is_refused_by_name(
    tmp_path: Path, made: Callable[..., Path], kind: str, changes: dict[str, Any], word: str
) -> None:
    refused(again(made(kind), tmp_path / "a", **changes), tmp_path / "out.gguf", word)


def test_an_unknown_architecture_is_told_what_is_known(tmp_path: Path, made: Callable[..., Path]) -> None:
    with pytest.raises(FormatError) as caught:
        convert(again(made("mpt"), tmp_path / "a", architectures=["PhiForCausalLM"]), tmp_path / "out.gguf")
    assert "PhiForCausalLM" in caught.value.message and "bloom, falcon, llama, mistral, mpt, qwen2" in caught.value.hint


def test_a_bias_that_one_layer_lacks_is_missed(tmp_path: Path) -> None:
    weights = tiny.weights(tiny.config(), bias=True)
    del weights["model.layers.1.self_attn.v_proj.bias"]
    source = tiny.folder(tmp_path / "hf", weights)
    refused(source, tmp_path / "out.gguf", "model.layers.1.self_attn.v_proj.bias")


def test_what_looks_back_less_far_is_told(tmp_path: Path, made: Callable[..., Path]) -> None:
    [notice] = convert(made("mistral"), tmp_path / "a.gguf")
    assert "64" in notice
    path = again(made("mistral"), tmp_path / "b", sliding_window=None, rope_parameters={"rope_type": "dynamic"})
    [notice] = convert(path, tmp_path / "b.gguf")
    assert str(json.loads((path / "config.json").read_text())["max_position_embeddings"]) in notice


def test_quantized_weights_are_refused_without_a_setting(tmp_path: Path) -> None:
    source = tiny.folder(tmp_path / "hf", {"model.layers.0.mlp.up_proj.qweight": np.zeros((8, 8), np.int32)})
    refused(source, tmp_path / "out.gguf", "quantized")


def test_other_things_are_called_by_their_names(tmp_path: Path) -> None:
    for name, words in {
        "adapter_config.json": "adapter", "params.json": "Meta", "README.md": "config.json"
    }.items():  # fmt: skip
        folder = tmp_path / name.replace(".", "-")
        folder.mkdir()
        (folder / name).write_text("{}")
        refused(folder, tmp_path / "out.gguf", words)
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    refused(tmp_path / "model.gguf", tmp_path / "out.gguf", "file")


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.model", "tokenizer_config.json", ""])
def test_the_source_is_never_written_over(tmp_path: Path, name: str) -> None:
    source = tiny.folder(tmp_path / "hf")
    before = {path: path.read_bytes() for path in source.iterdir()}
    with pytest.raises(UsageError):
        convert(source, source / name)
    (tmp_path / "link").symlink_to(source / (name or "config.json"))
    with pytest.raises(UsageError):
        convert(source, tmp_path / "link")
    assert {path: path.read_bytes() for path in source.iterdir()} == before


def test_a_product_beside_the_weights_may_be_made_again(tmp_path: Path) -> None:
    source = tiny.folder(tmp_path / "hf")
    assert bytes_of(source, source / "out.gguf") == bytes_of(source, source / "out.gguf")


@pytest.mark.parametrize("shape", [[1 << 40, 64], [64, 1 << 40], [0, 64], [420, 64, 1], [64], []])
def test_shapes_that_lie_are_refused_in_little_memory(tmp_path: Path, shape: list[int]) -> None:
    source = tiny.folder(tmp_path / "hf")
    path = source / "model.safetensors"
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    entries = json.loads(data[8 : 8 + size])
    entries["model.embed_tokens.weight"]["shape"] = shape
    text = json.dumps(entries).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + size :])
    tracemalloc.start()
    refused(source, tmp_path / "out.gguf")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16 << 20
