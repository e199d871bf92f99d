"""Merging adapters: what is written where, what is refused, and that nothing is dropped or half done."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from vigtui.core.errors import CapacityError, FormatError, NotFoundError, UsageError, VigtuiError
from vigtui.registry.convert.model import convert
from vigtui.registry.merge.merge import merge, survey
from vigtui.registry.sniff import sniff

from .. import tiny
from .lora import torch_file

AT = "base_model.model."
Q = "model.layers.0.self_attn.q_proj"


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return tiny.folder(tmp_path / "base")


@pytest.fixture
def lora(base: Path, tmp_path: Path) -> Path:
    return tiny.adapter(tmp_path / "lora", base)


def expected(base: Path, lora: Path, scale: float = 2.0) -> dict[str, np.ndarray]:
    """W + scale·B·A, by name; 8 / 4 is the scale of `tiny.adapter`."""
    weights, factors = load_file(base / "model.safetensors"), tiny.factors(base, 4)
    for key in factors:
        if "lora_A" in key:
            name = key.removeprefix(AT).replace("lora_A.", "")
            weights[name] = weights[name] + np.float32(scale) * (
                factors[key.replace("lora_A", "lora_B")] @ factors[key]
            )
    return weights


def holds(target: Path, wanted: dict[str, np.ndarray]) -> None:
    found = {name: array for file in target.glob("*.safetensors") for name, array in load_file(file).items()}
    assert found.keys() == wanted.keys()
    assert all(np.allclose(found[name], wanted[name], rtol=1e-5, atol=1e-6) for name in found)


def rewrite(lora: Path, change, **settings: object) -> Path:
    """Write the adapter again with its tensors as `change` gives them and `settings` in its adapter_config.json."""
    file, config = lora / "adapter_model.safetensors", lora / "adapter_config.json"
    save_file(change(load_file(file)), file)
    config.write_text(json.dumps(json.loads(config.read_text()) | settings))
    return lora


def refused(base: Path, adapters, *words: str, kind: type[VigtuiError] = FormatError, **options) -> VigtuiError:
    target = base.parent / "target"
    adapters = [(adapters, 1.0)] if isinstance(adapters, Path) else adapters
    with pytest.raises(kind) as caught:
        merge(base, adapters, target, **options)
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert caught.value.hint
    assert not target.exists() and not list(base.parent.glob(".target*"))
    return caught.value


# what is written


def test_the_folder_is_complete(base, lora, tmp_path):
    (base / "LICENSE.txt").write_text("free")
    for stale in ("pytorch_model.bin", "model.gguf", "pytorch_model.bin.index.json", "optimizer.pt", "README.md"):
        (base / stale).write_text("{}")
    before = {path.name: path.read_bytes() for path in base.iterdir()}
    steps = []
    assert merge(base, [(lora, 1.0)], tmp_path / "out", progress=lambda *step: steps.append(step)) == ()
    holds(tmp_path / "out", expected(base, lora))
    names = {"config.json", "tokenizer.model", "tokenizer_config.json", "LICENSE.txt"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == {*names, "model.safetensors"}
    assert all((tmp_path / "out" / name).read_bytes() == before[name] for name in names)
    assert before == {path.name: path.read_bytes() for path in base.iterdir()}
    assert [done for _stage, done, _total in steps] == list(range(1, steps[0][2] + 1))


def test_a_scale_and_several_adapters(base, lora, tmp_path):
    merge(base, [(lora, 0.25), (lora, -1.0)], tmp_path / "out")
    holds(tmp_path / "out", expected(base, lora, 2.0 * (0.25 - 1.0)))


def test_shards_stay(base, lora, tmp_path):
    weights = load_file(base / "model.safetensors")
    names = [f"model-0000{n}-of-00003.safetensors" for n in (1, 2, 3)]
    places = {name: names[n % 3] for n, name in enumerate(sorted(weights))}
    for file in names:
        save_file({name: weights[name] for name in weights if places[name] == file}, base / file)
    listing = {"metadata": {"total_size": 1, "total_parameters": 2}, "weight_map": places}
    (base / "model.safetensors.index.json").write_text(json.dumps(listing))
    wanted = expected(base, lora)
    (base / "model.safetensors").unlink()
    merge(base, [(lora, 1.0)], tmp_path / "out")
    holds(tmp_path / "out", wanted)
    found = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    assert found["weight_map"] == places
    assert found["metadata"]["total_size"] == sum(array.nbytes for array in weights.values())
    assert found["metadata"]["total_parameters"] == sum(array.size for array in weights.values())
    assert sorted(path.name for path in (tmp_path / "out").glob("*.safetensors")) == names
    for file in names:
        start = (tmp_path / "out" / file).read_bytes()[8:60]
        assert start.startswith(b'{"__metadata__":{"format":"pt"}')


def test_pytorch_files_become_safetensors(base, lora, tmp_path):
    weights, wanted = load_file(base / "model.safetensors"), expected(base, lora)
    (base / "model.safetensors").unlink()
    names = [f"pytorch_model-0000{n}-of-00002.bin" for n in (1, 2)]
    places = {name: names[n % 2] for n, name in enumerate(sorted(weights))}
    for file in names:
        torch_file(base / file, {name: weights[name] for name in weights if places[name] == file})
    (base / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    merge(base, [(lora, 1.0)], tmp_path / "out")
    holds(tmp_path / "out", wanted)
    shards = {name.replace("pytorch_model", "model").replace(".bin", ".safetensors") for name in names}
    rest = {"config.json", "tokenizer.model", "tokenizer_config.json", "model.safetensors.index.json"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == shards | rest


@pytest.mark.parametrize("stored", ["F16", "BF16", "F32"])
@pytest.mark.parametrize("transposed", [False, True])
def test_tensors_of_many_pieces(tmp_path, stored, transposed):
    """DoRA's norms over rows within a piece, over columns through all of them; 4 MB is several pieces."""
    random = np.random.default_rng(3)
    shape, (out, inner) = (1536, 1024), ((1024, 1536) if transposed else (1536, 1024))
    weight = random.normal(0, 0.1, shape).astype(np.float32)
    raw = {"F16": weight.astype(np.float16), "BF16": tiny.bfloat16(weight), "F32": weight}[stored]
    weight = (raw.astype(np.uint32) << 16).view(np.float32) if stored == "BF16" else raw.astype(np.float32)
    base, lora = tmp_path / "base", tmp_path / "lora"
    base.mkdir(), lora.mkdir()
    (base / "config.json").write_text('{"model_type": "any"}')
    tiny.write_safetensors(base / "model.safetensors", {"h.weight": (stored, raw)})
    a, b = (random.normal(0, 0.1, s).astype(np.float32) for s in ((4, inner), (out, 4)))
    m = random.uniform(1, 2, out).astype(np.float32)
    save_file(
        {"h.lora_A.weight": a, "h.lora_B.weight": b, "h.lora_magnitude_vector": m}, lora / "adapter_model.safetensors"
    )
    (lora / "adapter_config.json").write_text('{"peft_type": "LORA", "r": 4, "lora_alpha": 8, "use_dora": true}')
    merge(base, [(lora, 1.0)], tmp_path / "out")
    changed = (weight.T if transposed else weight) + 2.0 * (b.astype(np.float64) @ a)
    wanted = m[:, None] * changed / np.linalg.norm(changed, axis=1)[:, None]
    data = (tmp_path / "out" / "model.safetensors").read_bytes()[-raw.nbytes :]
    found = np.frombuffer(data, raw.dtype).reshape(shape)
    found = (found.astype(np.uint32) << 16).view(np.float32) if stored == "BF16" else found.astype(np.float32)
    exact = {"F16": 2**-11, "BF16": 2**-8, "F32": 2**-20}[stored]
    assert np.allclose(found, wanted.T if transposed else wanted, rtol=exact, atol=1e-7)


# adapters as trainers left them


def test_names_with_and_without_prefix_and_adapter(base, lora, tmp_path):
    def old(tensors):
        return {key.removeprefix(AT).replace(".weight", ".default.weight"): array for key, array in tensors.items()}

    rewrite(lora, old, enable_lora=None, merge_weights=False)
    merge(base, [(lora, 1.0)], tmp_path / "out")
    holds(tmp_path / "out", expected(base, lora))


def test_folders_without_settings(base, lora, tmp_path):
    torch_file(lora / "pytorch_model.bin", tiny.factors(base, 4))
    torch_file(lora / "adapter_model.bin", {})
    (lora / "adapter_model.safetensors").unlink()
    (lora / "adapter_config.json").unlink()
    refused(base, lora, "alpha", "--alpha", kind=UsageError)
    assert sniff(lora).variant == "adapter"
    merge(base, [(lora, 1.0)], tmp_path / "out", alpha=8.0)
    holds(tmp_path / "out", expected(base, lora))
    (lora / "adapter_config.json").write_text('{"peft_type": "LORA", "r": 4, "lora_alpha": 8}')
    assert sniff(lora).kind == "adapter"
    merge(base, [(lora, 1.0)], tmp_path / "again")
    holds(tmp_path / "again", expected(base, lora))
    assert (lora / "pytorch_model.bin").is_file()


def test_modules_saved_under_the_name_of_the_adapter(base, lora, tmp_path):
    head = np.full((420, 64), 0.5, np.float32)
    saved = {f"{AT}lm_head.modules_to_save.default.weight": head, f"{AT}lm_head.original_module.weight": head * 2}
    merge(base, [(rewrite(lora, lambda tensors: tensors | saved), 1.0)], tmp_path / "out")
    holds(tmp_path / "out", expected(base, lora) | {"lm_head.weight": head})


def test_copies_of_the_base_change_nothing(base, lora, tmp_path):
    """PEFT saves the embeddings beside a LoRA on them, so two such adapters both hold them."""
    head = load_file(base / "model.safetensors")["lm_head.weight"]
    saved = {f"{AT}lm_head.base_layer.weight": head}
    rewrite(lora, lambda tensors: tensors | saved)
    merge(base, [(lora, 0.5), (lora, 0.5)], tmp_path / "out")
    holds(tmp_path / "out", expected(base, lora))
    save_file(saved, lora / "adapter_model.safetensors")
    refused(base, lora, "changes nothing")


def test_a_base_saved_without_its_outermost_module(base, lora, tmp_path):
    file = base / "model.safetensors"
    wanted = {name.removeprefix("model."): array for name, array in expected(base, lora).items()}
    save_file({name.removeprefix("model."): array for name, array in load_file(file).items()}, file)
    merge(base, [(lora, 1.0)], tmp_path / "out")
    holds(tmp_path / "out", wanted)


def test_a_vocabulary_that_grew(base, lora, tmp_path):
    weights = load_file(base / "model.safetensors")
    names = ("model.embed_tokens.weight", "lm_head.weight")
    grown = {name: np.vstack([weights[name] + 0.5, np.ones((1, 64), np.float32)]) for name in names}
    (base / "tokenizer.json").write_text("{}")
    for name, value in {
        "tokenizer_config.json": '{"pad_token": "<pad>"}',
        "added_tokens.json": '{"<pad>": 420}',
    }.items():
        (lora / name).write_text(value)
    rewrite(lora, lambda tensors: tensors | {AT + name: array for name, array in grown.items()})
    merge(base, [(lora, 1.0)], tmp_path / "out")
    holds(tmp_path / "out", expected(base, lora) | grown)
    settings = json.loads((base / "config.json").read_text())
    assert json.loads((tmp_path / "out" / "config.json").read_text()) == settings | {"vocab_size": 421}
    assert json.loads((tmp_path / "out" / "added_tokens.json").read_text()) == {"<pad>": 420}
    assert not (tmp_path / "out" / "tokenizer.json").exists()
    convert(tmp_path / "out", tmp_path / "out.gguf", "f32")
    with tiny.load(tmp_path / "out.gguf") as model:
        assert model.logits([1, 5, 420]).shape == (3, 421)


def test_a_vocabulary_that_grew_on_one_side(base, lora):
    more = {f"{AT}model.embed_tokens.weight": np.ones((421, 64), np.float32)}
    refused(base, rewrite(lora, lambda tensors: tensors | more), "embed_tokens", "421", "420")


def test_a_vocabulary_of_another_size(base, lora):
    factors = {
        f"{AT}model.embed_tokens.lora_embedding_A": np.ones((4, 421), np.float32),
        f"{AT}model.embed_tokens.lora_embedding_B": np.ones((64, 4), np.float32),
    }
    refused(base, rewrite(lora, lambda tensors: tensors | factors), "vocabulary", "421", "420")


def test_a_tokenizer_with_more_tokens_is_mentioned(base, lora, tmp_path):
    (lora / "added_tokens.json").write_text('{"<pad>": 420}')
    (notice,) = merge(base, [(lora, 1.0)], tmp_path / "out")
    assert "421" in notice and "420" in notice


def test_another_base_with_the_same_shapes_is_mentioned(base, tmp_path):
    lora = tiny.adapter(tmp_path / "lora", base, base_model_name_or_path="bofenghuang/vigogne-2-7b-chat")
    found = survey(base, [(lora, 1.0)])
    assert len(found.notices) == 1 and "vigogne-2-7b-chat" in found.notices[0]
    cached = tmp_path / "models--bofenghuang--vigogne-2-7b-chat" / "snapshots" / "0123"
    cached.mkdir(parents=True)
    for path in base.iterdir():
        (cached / path.name).symlink_to(path)
    assert merge(cached, [(lora, 1.0)], tmp_path / "out") == ()
    assert not any(path.is_symlink() for path in (tmp_path / "out").iterdir())


def test_the_survey_says_what_will_be_written(base, lora, tmp_path):
    found = survey(base, [(lora, 1.0)])
    merge(base, [(lora, 1.0)], tmp_path / "out")
    written = sum(path.stat().st_size for path in (tmp_path / "out").iterdir())
    assert (found.changed, found.tensors) == (14, 21)
    assert 0 <= written - found.size < 4096
    assert found.memory > 0


# tied embeddings


def tied(tmp_path: Path) -> Path:
    return tiny.folder(tmp_path / "base", tie_word_embeddings=True)


def test_saving_tied_embeddings_twice_is_harmless(tmp_path):
    base = tied(tmp_path)
    lora = tiny.adapter(tmp_path / "lora", base)
    new = np.full((420, 64), 0.25, np.float32)
    both = {f"{AT}model.embed_tokens.weight": new, f"{AT}lm_head.weight": new}
    (notice,) = merge(base, [(rewrite(lora, lambda tensors: tensors | both), 1.0)], tmp_path / "out")
    assert "model.embed_tokens" in notice
    assert (load_file(tmp_path / "out" / "model.safetensors")["model.embed_tokens.weight"] == 0.25).all()


def test_an_output_that_left_its_embeddings_is_refused(tmp_path):
    base = tied(tmp_path)
    lora = tiny.adapter(tmp_path / "lora", base)
    both = {f"{AT}{name}.weight": np.full((420, 64), n + 1.0, np.float32) for n, name in enumerate(
        ("model.embed_tokens", "lm_head"))}  # fmt: skip
    refused(base, rewrite(lora, lambda tensors: tensors | both), "lm_head.weight", "tie")


def test_a_copy_of_tied_embeddings_follows(tmp_path):
    base = tied(tmp_path)
    file = base / "model.safetensors"
    weights = load_file(file)
    save_file(weights | {"lm_head.weight": weights["model.embed_tokens.weight"]}, file)
    lora = tiny.adapter(tmp_path / "lora", base)
    factors = {
        f"{AT}model.embed_tokens.lora_embedding_A": np.ones((4, 420), np.float32),
        f"{AT}model.embed_tokens.lora_embedding_B": np.ones((64, 4), np.float32),
    }
    merge(base, [(rewrite(lora, lambda tensors: tensors | factors), 1.0)], tmp_path / "out")
    found = load_file(tmp_path / "out" / "model.safetensors")
    assert (found["lm_head.weight"] == found["model.embed_tokens.weight"]).all()
    assert not (found["lm_head.weight"] == weights["model.embed_tokens.weight"]).any()


# nothing is dropped


@pytest.mark.parametrize(
    ("key", "shape", "words"),
    [
        ("model.layers.7.mlp.up_proj.lora_A.weight", (4, 64), ["model.layers.7.mlp.up_proj"]),
        ("model.layers.0.self_attn.qkv_proj.weight", (4, 64), ["qkv_proj"]),
        (f"{Q}.lora_B.bias", (64,), [f"{Q}.lora_B.bias"]),
        (f"{Q}.lora_A.other.weight", (4, 64), [f"{Q}.lora_A"]),
        (f"{Q}.lora_E", (4,), ["lora_E"]),
        (f"{Q}.lora_magnitude_vector", (63,), ["lora_magnitude_vector", "63", "64"]),
        ("model.norm.weight", (63,), ["model.norm", "63", "64"]),
        ("model.embed_tokens.token_adapter.trainable_tokens_delta", (2, 64), ["token_adapter"]),
        ("x" * 600, (1,), ["xxx"]),
    ],
)
def test_a_tensor_without_place_is_named(base, lora, key, shape, words):
    refused(base, rewrite(lora, lambda tensors: tensors | {AT + key: np.ones(shape, np.float32)}), *words)


def test_joined_layers_are_refused_with_all_names(base, lora):
    def joined(tensors):
        return {key.replace("q_proj", "qkv_proj"): array for key, array in tensors.items()}

    error = refused(base, rewrite(lora, joined), "model.layers.0.self_attn.qkv_proj", "model.layers.1")
    assert "2 of its tensors" in error.message


def test_shapes_of_another_size_are_named(base, tmp_path):
    other = tiny.folder(tmp_path / "other", hidden_size=128)
    refused(base, tiny.adapter(tmp_path / "lora", other), "128", "64", "base")


def test_two_adapters_that_replace_the_same(base, lora, tmp_path):
    rewrite(lora, lambda tensors: tensors | {f"{AT}lm_head.weight": np.ones((420, 64), np.float32)})
    other = shutil.copytree(lora, tmp_path / "other")
    refused(base, [(lora, 1.0), (other, 1.0)], "lm_head.weight")


# what cannot be merged


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"peft_type": "IA3"}, "IA3"),
        ({"peft_type": "ADALORA"}, "ADALORA"),
        ({"init_lora_weights": "pissa_niter_16"}, "pissa"),
        ({"init_lora_weights": "OLoRA"}, "OLoRA"),
        ({"init_lora_weights": "loftq"}, "path_initial_model_for_weight_conversion"),
        ({"init_lora_weights": "corda"}, "corda"),
        ({"layer_replication": [[0, 2]]}, "layer_replication"),
        ({"target_parameters": ["experts"]}, "target_parameters"),
        ({"alora_invocation_tokens": [1]}, "alora_invocation_tokens"),
        ({"use_dora": True}, "lora_magnitude_vector"),
        ({"modules_to_save": ["score"]}, "score"),
        ({"r": 16}, "16"),
        ({"lora_alpha": -1}, "-1"),
        ({"lora_alpha": True}, "True"),
        ({"alpha_pattern": ["q_proj"]}, "alpha_pattern"),
    ],
)
def test_kinds_of_adapter_that_are_no_sum(base, tmp_path, settings, word):
    refused(base, tiny.adapter(tmp_path / "lora", base, **settings), word)


def test_adapters_without_effect(base, lora):
    empty = {}
    for tensors in ({key: array * ("lora_A" in key) for key, array in tiny.factors(base, 4).items()}, empty):
        save_file(tensors, lora / "adapter_model.safetensors")
        refused(base, lora, "changes nothing")
    (lora / "adapter_model.safetensors").unlink()
    torch_file(lora / "adapter_model.bin", {})
    refused(base, lora, "changes nothing")


@pytest.mark.parametrize("scale", [0.0, float("nan"), float("inf")])
def test_scales_without_sense(base, lora, scale):
    refused(base, [(lora, scale)], "scale", kind=UsageError)


def test_alpha_only_where_it_is_missing(base, lora):
    refused(base, lora, "8", "--scale", kind=UsageError, alpha=32.0)
    refused(base, lora, "alpha", kind=UsageError, alpha=-2.0)
    refused(base, [], "--lora", kind=UsageError)


def test_values_that_do_not_fit_the_dtype(base, lora):
    file = base / "model.safetensors"
    save_file({name: array.astype(np.float16) for name, array in load_file(file).items()}, file)
    refused(base, [(lora, 1e9)], "F16", "--scale")
    refused(base, rewrite(lora, lambda tensors: {key: array * np.nan for key, array in tensors.items()}), "hold")


def test_bases_that_cannot_be_merged_into(base, lora, tmp_path):
    convert(base, tmp_path / "base.gguf", "q8_0")
    refused(tmp_path / "base.gguf", lora, "base.gguf", "--lora")
    old = tmp_path / "ggml-model-q4_0.bin"
    old.write_bytes(b"tjgg" + bytes([3, 0, 0, 0]) + bytes(400))
    refused(old, lora, "full weights")
    refused(lora, lora, "BASE --lora", kind=FormatError)
    refused(tmp_path / "nowhere", lora, "nowhere", kind=NotFoundError)
    settings = json.loads((base / "config.json").read_text())
    for method in ("bitsandbytes", "gptq", "awq"):
        quantized = {"quantization_config": {"quant_method": method, "bits": 4, "group_size": 128}}
        (base / "config.json").write_text(json.dumps(settings | quantized))
        refused(base, lora, "full weights")


def test_things_that_are_no_adapter(base, lora, tmp_path):
    refused(base, base, "whole model", kind=UsageError)
    refused(base, tmp_path / "nowhere", "nowhere", kind=NotFoundError)
    from vigtui.registry.convert import adapter

    adapter.convert(lora, base, tmp_path / "lora.gguf")
    refused(base, tmp_path / "lora.gguf", "run time")


def test_the_target_lies_apart(base, lora, tmp_path):
    before = {path: path.read_bytes() for folder in (base, lora) for path in folder.iterdir()}
    for target in (base, base / "inside", lora, lora / "merged", tmp_path, tmp_path / "lora" / ".." / "base"):
        with pytest.raises(UsageError):
            merge(base, [(lora, 1.0)], target)
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").write_text("mine")
    with pytest.raises(UsageError):
        merge(base, [(lora, 1.0)], tmp_path / "taken")
    assert (tmp_path / "taken" / "file").read_text() == "mine"
    assert before == {path: path.read_bytes() for folder in (base, lora) for path in folder.iterdir()}


def test_a_full_disk(base, lora, monkeypatch):
    usage = shutil.disk_usage(base)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage._replace(free=1000))
    refused(base, lora, "GB", kind=CapacityError)


# strangers' files


def test_a_pickle_that_executes(base, lora, tmp_path):
    import pickle
    import zipfile

    class Bomb:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'executed'}",)

    (lora / "adapter_model.safetensors").unlink()
    with zipfile.ZipFile(lora / "adapter_model.bin", "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"x.lora_A.weight": Bomb()}, protocol=2))
    refused(base, lora, "system")
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    "header",
    [
        {"a.lora_A.weight": {"dtype": "F32", "shape": [1 << 40, 4], "data_offsets": [0, 1 << 44]}},
        {"a.lora_A.weight": {"dtype": "F32", "shape": [4, 4], "data_offsets": [0, 16]}},
        {"a.lora_A.weight": {"dtype": "F32", "shape": [-4, -4], "data_offsets": [0, 64]}},
        {"a.lora_A.weight": {"dtype": "F32", "shape": "4", "data_offsets": [0, 64]}},
    ],
)
def test_headers_that_lie(base, lora, header):
    text = json.dumps(header).encode()
    (lora / "adapter_model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + bytes(64))
    refused(base, lora, "adapter_model.safetensors")


def test_absurd_factors(base, lora):
    """A rank larger than the matrix, factors that are no matrices, and numbers that are no floats."""
    for a, b in (((5000, 64), (64, 5000)), ((4, 64, 1, 1), (64, 4, 1, 1)), ((4, 0), (0, 4)), ((4, 64), (64, 5))):
        factors = {f"{AT}{Q}.lora_A.weight": np.ones(a, np.float32), f"{AT}{Q}.lora_B.weight": np.ones(b, np.float32)}
        refused(base, rewrite(lora, lambda _tensors, factors=factors: factors), Q)
    whole = {key: array.astype(np.int8) for key, array in tiny.factors(base, 4).items()}
    refused(base, rewrite(lora, lambda _tensors: whole), "I8")


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux says how much memory was held")
def test_memory_stays_bounded(tmp_path):
    """128 MB of weights, as float32 256 MB, merged in less than 150 MB, Python and numpy among them."""
    base, lora = tmp_path / "base", tmp_path / "lora"
    base.mkdir(), lora.mkdir()
    (base / "config.json").write_text("{}")
    save_file({f"h.{n}.weight": np.zeros((8192, 4096), np.float16) for n in range(2)}, base / "model.safetensors")
    ones = {"A": np.ones((8, 4096), np.float32), "B": np.ones((8192, 8), np.float32)}
    factors = {f"h.{n}.lora_{side}.weight": array for n in range(2) for side, array in ones.items()}
    save_file(factors, lora / "adapter_model.safetensors")
    (lora / "adapter_config.json").write_text('{"r": 8, "lora_alpha": 8}')
    script = r"""
import re, sys
from pathlib import Path
from vigtui.registry.merge.merge import merge
base, lora, out = map(Path, sys.argv[1:])
merge(base, [(lora, 1.0)], out)
print(re.search(r"VmHWM:\s*(\d+)", Path("/proc/self/status").read_text())[1])
"""
    done = subprocess.run(
        [sys.executable, "-c", script, base, lora, tmp_path / "out"], capture_output=True, check=True, text=True
    )
    assert int(done.stdout) < 150 << 10
    assert load_file(tmp_path / "out" / "model.safetensors")["h.1.weight"][8191, 4095] == 8


# stopped in the middle


def test_an_interruption_leaves_nothing(base, lora, tmp_path):
    def interrupt(_stage: str, done: int, _total: int) -> None:
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        merge(base, [(lora, 1.0)], tmp_path / "out", progress=interrupt)
    assert {path.name for path in tmp_path.iterdir()} == {"base", "lora"}


_SLOW = """
import sys, time
from pathlib import Path
from vigtui.registry.merge.merge import merge
base, lora, out = map(Path, sys.argv[1:])
def progress(stage, done, total):
    print(done, flush=True)
    time.sleep(0.002)
merge(base, [(lora, 1.0)], out, progress=progress)
print("end", flush=True)
"""


def test_a_kill_leaves_nothing_and_a_rerun_gives_the_same(base, lora, tmp_path):
    merge(base, [(lora, 1.0)], tmp_path / "whole")
    whole = {path.name: path.read_bytes() for path in (tmp_path / "whole").iterdir()}
    target = tmp_path / "out"
    chance = random.Random(7)
    for _round in range(6):
        process = subprocess.Popen([sys.executable, "-c", _SLOW, base, lora, target], stdout=subprocess.PIPE, text=True)
        assert process.stdout
        for _line in range(chance.randrange(1, 22)):
            process.stdout.readline()
        time.sleep(chance.random() * 0.003)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        if target.exists():
            assert {path.name: path.read_bytes() for path in target.iterdir()} == whole
            shutil.rmtree(target)
    merge(base, [(lora, 1.0)], target)
    assert {path.name: path.read_bytes() for path in target.iterdir()} == whole
    assert not list(tmp_path.glob(".out.*"))
