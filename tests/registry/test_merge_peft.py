"""A merge equals PEFT's merge of float32 copies, for every variant of LoRA, to one unit in the last place."""

import json
from pathlib import Path
from typing import Any

import pytest
from vigtui.registry.merge.merge import merge

pytest.importorskip("peft")
import torch

from . import lora

torch.set_num_threads(1)
DTYPES = ("float32", "float16", "bfloat16")
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "two modules": {"target_modules": ["q_proj", "v_proj"]},
    "rslora": {"use_rslora": True},
    "patterns": {
        "rank_pattern": {"k_proj": 2, "^model.layers.1.mlp.down_proj": 7},
        "alpha_pattern": {r".*\.[01]\.self_attn\.(q|o)_proj": 3, "model.layers.0.mlp.up_proj": 11},
    },
    "dora": {"use_dora": True},
    "dora and rslora": {"use_dora": True, "use_rslora": True},
    "embeddings": {"target_modules": ["q_proj", "embed_tokens", "lm_head"]},
    "dora on embeddings": {"target_modules": ["q_proj", "embed_tokens", "lm_head"], "use_dora": True},
    "modules_to_save": {"modules_to_save": ["embed_tokens", "lm_head"]},
    "norms saved": {"modules_to_save": ["norm"]},
    "tokens": {"trainable_token_indices": [3, 59, 17]},
    "tokens of both": {"trainable_token_indices": {"embed_tokens": [3, 4], "lm_head": [5]}},
    "fan_in_fan_out of linears": {"fan_in_fan_out": True},
}
BIASED = {
    "lora_bias": {"lora_bias": True, "target_modules": ["q_proj", "o_proj"]},
    "bias all": {"bias": "all"},
    "bias lora_only": {"bias": "lora_only"},
}
TIED = {
    "embeddings": {"target_modules": ["q_proj", "embed_tokens"]},
    "tokens": {"trainable_token_indices": [3, 4]},
}
CONVOLUTIONS = {"plain": {}, "dora": {"use_dora": True}, "rslora": {"use_rslora": True}}
GPT2 = ["c_attn", "c_proj", "c_fc"]


@pytest.fixture(scope="module")
def bases(tmp_path_factory) -> dict[str, Path]:
    home = tmp_path_factory.mktemp("bases")
    return {dtype: lora.base(home / dtype, dtype) for dtype in DTYPES}


def agrees(base: Path, adapters: list[tuple[Path, float]], target: Path, resize: int | None = None) -> None:
    """To one unit; in float32 the order in which a DoRA's squares are added alone moves the result by up to five."""
    merge(base, adapters, target)
    dora = any('"use_dora": true' in (path / "adapter_config.json").read_text() for path, _scale in adapters)
    rough = dora and json.loads((base / "config.json").read_text())["dtype"] == "float32"
    lora.same(target, lora.merged(base, adapters, resize), base, 6 if rough else 1)


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_in_every_dtype(bases, tmp_path, variant):
    for dtype, base in bases.items():
        adapter = lora.adapter(tmp_path / f"{dtype}-lora", base, **VARIANTS[variant])
        agrees(base, [(adapter, 1.0)], tmp_path / dtype)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_adapters_in_half_precision(bases, tmp_path, dtype):
    adapter = lora.adapter(tmp_path / "lora", bases["float32"], dtype=dtype, use_dora=True)
    for name, base in bases.items():
        agrees(base, [(adapter, 1.0)], tmp_path / name)


@pytest.mark.parametrize("variant", BIASED)
def test_biases(tmp_path, variant):
    base = lora.base(tmp_path / "base", "float16", attention_bias=True)
    attention = {"target_modules": ["q_proj", "o_proj"], **BIASED[variant]}
    agrees(base, [(lora.adapter(tmp_path / "lora", base, **attention), 1.0)], tmp_path / "out")


@pytest.mark.parametrize("variant", TIED)
def test_tied_embeddings(tmp_path, variant):
    base = lora.base(tmp_path / "base", "bfloat16", tie_word_embeddings=True)
    agrees(base, [(lora.adapter(tmp_path / "lora", base, **TIED[variant]), 1.0)], tmp_path / "out")


@pytest.mark.parametrize("variant", CONVOLUTIONS)
def test_weights_stored_transposed(tmp_path, variant):
    for dtype in DTYPES:
        base = lora.base(tmp_path / f"{dtype}-base", dtype, "gpt2")
        settings = {"target_modules": GPT2, "fan_in_fan_out": True, **CONVOLUTIONS[variant]}
        adapter = lora.adapter(tmp_path / f"{dtype}-lora", base, **settings)
        agrees(base, [(adapter, 1.0)], tmp_path / dtype)


@pytest.mark.parametrize("kind", ["bloom", "qwen2"])
def test_other_architectures(tmp_path, kind):
    base = lora.base(tmp_path / "base", "float16", kind)
    modules = ["query_key_value", "dense", "dense_h_to_4h"] if kind == "bloom" else lora.SEVEN
    agrees(base, [(lora.adapter(tmp_path / "lora", base, target_modules=modules), 1.0)], tmp_path / "out")


@pytest.mark.parametrize("scale", [0.5, -0.3, 2.0])
def test_a_scale(bases, tmp_path, scale):
    for use_dora in (False, True):
        adapter = lora.adapter(tmp_path / f"lora-{use_dora}", bases["float16"], use_dora=use_dora)
        agrees(bases["float16"], [(adapter, scale)], tmp_path / f"{use_dora}")


def test_several_adapters_with_scales_of_their_own(bases, tmp_path):
    base = bases["bfloat16"]
    adapters = [
        (lora.adapter(tmp_path / "one", base, seed=5), 0.7),
        (lora.adapter(tmp_path / "two", base, seed=6, use_dora=True, target_modules=["q_proj", "up_proj"]), 1.0),
        (lora.adapter(tmp_path / "three", base, seed=7, r=2, target_modules=["v_proj", "up_proj"]), 1.5),
        (lora.adapter(tmp_path / "four", base, seed=8, use_dora=True, target_modules=["up_proj"]), 1.0),
    ]
    agrees(base, adapters, tmp_path / "out")


def test_a_vocabulary_that_grew(bases, tmp_path):
    for dtype, base in bases.items():
        adapter = lora.adapter(tmp_path / f"{dtype}-lora", base, resize=61)
        agrees(base, [(adapter, 1.0)], tmp_path / dtype, resize=61)
