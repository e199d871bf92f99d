"""PEFT LoRA → GGUF adapter: applied at run time it equals the merged weights."""

import json
from math import sqrt
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from vigtui.core.errors import FormatError, UsageError
from vigtui.registry import header
from vigtui.registry.convert import adapter
from vigtui.registry.convert.model import convert
from vigtui.registry.merge import pattern
from vigtui.registry.merge.merge import merge

from .. import tiny
from . import families
from .lora import torch_file

TOKENS = [1, 300, 17, 260, 399, 5, 42]


@pytest.fixture
def base(tmp_path: Path) -> Path:
    source = tiny.folder(tmp_path / "base")
    convert(source, tmp_path / "base.gguf", "f32")
    return source


def merged(base: Path, lora: Path, scale) -> dict[str, np.ndarray]:
    """Base weights plus scale(module) · B·A."""
    weights, pair = load_file(base / "model.safetensors"), load_file(lora / "adapter_model.safetensors")
    pair = {key: array.astype(np.float32) for key, array in pair.items()}
    for key in pair:
        if ".lora_A." in key:
            name = key.removeprefix("base_model.model.").split(".lora_A.")[0]
            delta = pair[key.replace("lora_A", "lora_B")] @ pair[key]
            weights[f"{name}.weight"] = weights[f"{name}.weight"] + np.float32(scale(name)) * delta
    return weights


def agrees(base: Path, lora: Path, scale, given: Path | None = None) -> None:
    target = base.parent / "lora.gguf"
    adapter.convert(lora, given, target)
    reference = tiny.forward(merged(base, lora, scale), tiny.config(), TOKENS)
    with tiny.load(base.parent / "base.gguf") as model:
        plain, adapted = model.logits(TOKENS), model.logits(TOKENS, target)
    assert np.abs(plain - reference).max() > 0.5
    assert np.abs(adapted - reference).max() < 1e-3
    assert tiny.divergence(adapted, reference) < 1e-8


def test_it_equals_merged_weights(base: Path, tmp_path: Path) -> None:
    agrees(base, tiny.adapter(tmp_path / "lora", base), lambda _name: 8 / 4)


def test_a_gguf_base_gives_the_same(base: Path, tmp_path: Path) -> None:
    lora = tiny.adapter(tmp_path / "lora", base, base_model_name_or_path="gone/away")
    agrees(base, lora, lambda _name: 8 / 4, given=tmp_path / "base.gguf")


def test_rslora_is_scaled_by_the_root(base: Path, tmp_path: Path) -> None:
    agrees(base, tiny.adapter(tmp_path / "lora", base, use_rslora=True), lambda _name: 8 / sqrt(4))


def test_patterns_of_rank_and_alpha(base: Path, tmp_path: Path) -> None:
    patterns = {"rank_pattern": {"k_proj": 2}, "alpha_pattern": {"model.layers.1.mlp.down_proj": 16}}
    lora = tiny.adapter(tmp_path / "lora", base, **patterns)
    save_file(tiny.factors(base, 4, ranks={"k_proj": 2}), lora / "adapter_model.safetensors")

    def scale(name: str) -> float:
        alpha = 16 if name == "model.layers.1.mlp.down_proj" else 8
        return alpha / (2 if name.endswith("k_proj") else 4)

    agrees(base, lora, scale)


def test_patterns_are_regular_expressions(base: Path, tmp_path: Path) -> None:
    lora = tiny.adapter(tmp_path / "lora", base, alpha_pattern={r".*\.1\.self_attn\.(q|k)_proj": 16})
    agrees(base, lora, lambda name: (16 if name.startswith("model.layers.1") and name[-6] in "qk" else 8) / 4)


def test_a_regular_expression_cannot_keep_it_busy(base: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(pattern, "SECONDS", 1)
    refused(tiny.adapter(tmp_path / "lora", base, alpha_pattern={r"(.*.*)*!": 4}), base, "alpha_pattern")


@pytest.mark.parametrize("kind", ["mistral", "qwen2"])
def test_relatives_of_llama(tmp_path: Path, kind: str) -> None:
    described = {"model_type": kind, "architectures": [f"{kind.title()}ForCausalLM"]}
    tensors = tiny.weights(tiny.config(), bias=kind == "qwen2")
    base = tiny.folder(tmp_path / "base", {n: t for n, t in tensors.items() if "o_proj.bias" not in n}, **described)
    lora = tiny.adapter(tmp_path / "lora", base)
    merge(base, [(lora, 1.0)], tmp_path / "merged")
    for source in ("base", "merged"):
        convert(tmp_path / source, tmp_path / f"{source}.gguf", "f32")
    found = {}
    for given in (base, tmp_path / "base.gguf"):
        adapter.convert(lora, given, tmp_path / f"{given.name}.lora.gguf")
        with tiny.load(tmp_path / "base.gguf") as model:
            plain, found[given] = model.logits(TOKENS), model.logits(TOKENS, tmp_path / f"{given.name}.lora.gguf")
    with tiny.load(tmp_path / "merged.gguf") as model:
        reference = model.logits(TOKENS)
    assert np.abs(plain - reference).max() > 0.5
    assert all(np.abs(logits - reference).max() < 1e-3 for logits in found.values())


FUSED = {
    "bloom": {"hidden_size": 64, "n_layer": 2, "n_head": 4},
    "falcon": {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "new_decoder_architecture": False,
               "alibi": False, "bias": False},
}  # fmt: skip


@pytest.mark.parametrize("kind", FUSED)
def test_projections_that_are_joined_in_other_orders(tmp_path: Path, kind: str) -> None:
    families.model(tmp_path / "base", kind, **FUSED[kind])
    families.write_tokenizer(tmp_path / "base", families.tokenizer(kind))
    lora, random = tmp_path / "lora", np.random.default_rng(4)
    lora.mkdir()
    factors = {}
    for name, weight in load_file(tmp_path / "base" / "model.safetensors").items():
        if name.endswith(("query_key_value.weight", "dense.weight", "dense_h_to_4h.weight")):
            module = f"base_model.model.{name.removesuffix('.weight')}"
            factors[f"{module}.lora_A.weight"] = random.normal(0, 0.2, (4, weight.shape[1])).astype(np.float32)
            factors[f"{module}.lora_B.weight"] = random.normal(0, 0.2, (weight.shape[0], 4)).astype(np.float32)
    save_file(factors, lora / "adapter_model.safetensors")
    (lora / "adapter_config.json").write_text('{"r": 4, "lora_alpha": 8}')
    merge(tmp_path / "base", [(lora, 1.0)], tmp_path / "merged")
    for source in ("base", "merged"):
        convert(tmp_path / source, tmp_path / f"{source}.gguf", "f32")
    adapter.convert(lora, tmp_path / "base", tmp_path / "lora.gguf")
    with tiny.load(tmp_path / "merged.gguf") as model:
        reference = model.logits(TOKENS)
    with tiny.load(tmp_path / "base.gguf") as model:
        plain, adapted = model.logits(TOKENS), model.logits(TOKENS, tmp_path / "lora.gguf")
    assert np.abs(plain - reference).max() > 0.5
    assert np.abs(adapted - reference).max() < 2e-3


def test_folders_of_2023(base: Path, tmp_path: Path) -> None:
    lora = tiny.adapter(tmp_path / "lora", base)
    torch_file(lora / "pytorch_model.bin", tiny.factors(base, 4))
    torch_file(lora / "adapter_model.bin", {})
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        (lora / name).unlink()
    with pytest.raises(UsageError) as caught:
        adapter.convert(lora, base, tmp_path / "none.gguf")
    assert "--alpha" in caught.value.hint
    adapter.convert(lora, base, tmp_path / "old.gguf", alpha=8)
    tiny.adapter(lora, base)
    (lora / "pytorch_model.bin").unlink()
    adapter.convert(lora, base, tmp_path / "new.gguf")
    assert (tmp_path / "old.gguf").read_bytes() == (tmp_path / "new.gguf").read_bytes()


def test_named_adapters_and_half_precision(base: Path, tmp_path: Path) -> None:
    lora = tiny.adapter(tmp_path / "lora", base)
    half = {
        key.replace(".weight", ".default.weight"): array.astype(np.float16)
        for key, array in tiny.factors(base, 4).items()
        if "q_proj" in key or "v_proj" in key
    }
    save_file(half, lora / "adapter_model.safetensors")
    adapter.convert(lora, base, tmp_path / "out.gguf")
    assert len(header.read(tmp_path / "out.gguf").tensors) == 8
    save_file({k.replace(".default", ""): a for k, a in half.items()}, lora / "adapter_model.safetensors")
    agrees(base, lora, lambda _name: 8 / 4)


def test_metadata(base: Path, tmp_path: Path) -> None:
    adapter.convert(tiny.adapter(tmp_path / "marin", base), None, tmp_path / "out.gguf")
    metadata = header.read(tmp_path / "out.gguf").metadata
    assert metadata["general.type"] == "adapter"
    assert metadata["adapter.type"] == "lora"
    assert metadata["adapter.lora.alpha"] == 8.0
    assert metadata["general.name"] == "marin"


def refused(lora: Path, base: Path | None, *words: str) -> None:
    target = lora.parent / "out.gguf"
    with pytest.raises(FormatError) as caught:
        adapter.convert(lora, base, target)
    assert all(word in caught.value.message for word in words), caught.value.message
    assert caught.value.hint
    assert not target.exists()


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"use_dora": True}, "lora_magnitude_vector"),
        ({"modules_to_save": ["lm_head"]}, "lm_head"),
        ({"trainable_token_indices": [1]}, "trainable_token_indices"),
        ({"fan_in_fan_out": True}, "fan_in_fan_out"),
        ({"peft_type": "IA3"}, "IA3"),
        ({"init_lora_weights": "pissa_niter_4"}, "pissa"),
        ({"bias": "all"}, "bias"),
        ({"rank_pattern": {"(": 4}}, "rank_pattern"),
        ({"lora_alpha": 0}, "lora_alpha"),
        ({"lora_alpha": "8"}, "lora_alpha"),
        ({"r": 16}, "16"),
        ({"rank_pattern": 3}, "rank_pattern"),
    ],
)
def test_settings_without_equal_are_named(base: Path, tmp_path: Path, changes: dict, word: str) -> None:
    refused(tiny.adapter(tmp_path / "lora", base, **changes), base, word)


def test_settings_without_effect_pass(base: Path, tmp_path: Path) -> None:
    lora = tiny.adapter(tmp_path / "lora", base, enable_lora=None, merge_weights=False, init_lora_weights="gaussian")
    adapter.convert(lora, base, tmp_path / "out.gguf")
    assert (tmp_path / "out.gguf").is_file()


def test_an_adapter_without_effect_is_refused(base: Path, tmp_path: Path) -> None:
    lora = tiny.adapter(tmp_path / "lora", base)
    zero = {key: array * ("lora_A" in key) for key, array in tiny.factors(base, 4).items()}
    save_file(zero, lora / "adapter_model.safetensors")
    refused(lora, base, "changes nothing")
    save_file({}, lora / "adapter_model.safetensors")
    refused(lora, base, "changes nothing")


@pytest.mark.parametrize(
    "key",
    [
        "base_model.model.lm_head.lora_A.weight",
        "base_model.model.model.layers.7.mlp.up_proj.lora_A.weight",
        "base_model.model.model.embed_tokens.lora_embedding_A",
        "base_model.model.model.layers.0.mlp.up_proj.lora_magnitude_vector",
        "base_model.model.model.layers.0.input_layernorm.lora_A.weight",
        "base_model.model.model.layers.0.self_attn.q_proj.bias",
    ],
)
def test_a_tensor_without_place_is_named(base: Path, tmp_path: Path, key: str) -> None:
    lora = tiny.adapter(tmp_path / "lora", base)
    tensors = tiny.factors(base, 4) | {key: np.ones((4, 64), np.float32)}
    save_file(tensors, lora / "adapter_model.safetensors")
    refused(lora, base, key.split(".lora_A")[0].removeprefix("base_model.model."))


def test_another_base_is_named(base: Path, tmp_path: Path) -> None:
    lora = tiny.adapter(tmp_path / "lora", base)
    other = tiny.folder(tmp_path / "other", hidden_size=128)
    refused(lora, other, "128")


def test_missing_files_and_bases(base: Path, tmp_path: Path) -> None:
    lora = tiny.adapter(tmp_path / "lora", base, base_model_name_or_path="nowhere")
    refused(lora, None, "nowhere")
    (lora / "adapter_model.safetensors").rename(lora / "adapter_model.bin")
    refused(lora, base, "adapter_model.bin")
    (lora / "adapter_model.bin").unlink()
    refused(lora, base, "adapter_model.safetensors")
    (lora / "adapter_config.json").write_text(json.dumps([]))
    refused(lora, base, "adapter_config.json")


@pytest.mark.parametrize("keep", [0, 8, 100, -1])
def test_cut_files_are_refused(base: Path, tmp_path: Path, keep: int) -> None:
    lora = tiny.adapter(tmp_path / "lora", base)
    path = lora / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    refused(lora, base, "adapter_model.safetensors")
