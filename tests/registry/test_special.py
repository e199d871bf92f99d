"""Files that disagree on the end of an answer, and quantized layers that say nothing of themselves."""

import json
from pathlib import Path

import numpy as np
import pytest
from vigtui.registry.describe import describe
from vigtui.registry.packing import inferred, stated
from vigtui.registry.sniff import sniff
from vigtui.registry.store import Registry

from .. import tiny


class Shape:
    def __init__(self, *shape: int) -> None:
        self.shape = shape


def test_the_decapoda_case(tmp_path: Path) -> None:
    folder = tiny.folder(
        tmp_path / "llama-7b-hf",
        settings={"bos_token": "", "eos_token": "", "tokenizer_class": "LLaMATokenizer"},
        bos_token_id=0,
        eos_token_id=1,
    )
    (folder / "generation_config.json").write_text(
        json.dumps({"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 0})
    )
    before = {file: file.read_bytes() for file in folder.iterdir()}
    added = Registry().add(folder)
    assert added.generation == {"stop_token_ids": (2,)}
    assert Registry().find(added.ref).generation == {"stop_token_ids": (2,)}
    said = " ".join(added.notices)
    assert all(word in said for word in ("config.json", "generation_config.json", "LLaMATokenizer", "at 2"))
    assert {file: file.read_bytes() for file in folder.iterdir()} == before


@pytest.mark.parametrize(
    ("config", "generation", "stop"),
    [
        (2, None, ()),
        (2, 2, ()),
        (1, [1, 2], ()),  # as Llama 3: the generation config adds to the config
        (1, 2, (2,)),
        (2, 1, (2,)),
        ([1, 3], None, (2,)),
        (None, None, ()),
        ("2", None, ()),
        ({}, [[]], ()),
    ],
)
def test_who_is_believed(tmp_path: Path, config: object, generation: object, stop: tuple[int, ...]) -> None:
    folder = tiny.folder(tmp_path / "hf", settings={"eos_token": {"content": "</s>"}}, eos_token_id=config)
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": generation}))
    found = sniff(folder)
    assert found.generation == ({"stop_token_ids": stop} if stop else {})
    assert bool(found.notices) == bool(stop)


def test_without_a_tokenizer_both_ends_count(tmp_path: Path) -> None:
    folder = tiny.folder(tmp_path / "hf", eos_token_id=5)
    (folder / "generation_config.json").write_text('{"eos_token_id": 7}')
    (folder / "tokenizer.model").unlink()
    assert sniff(folder).generation == {"stop_token_ids": (5, 7)}


def test_added_tokens_are_looked_up(tmp_path: Path) -> None:
    folder = tiny.folder(tmp_path / "hf", settings={"eos_token": "<|im_end|>"}, eos_token_id=2)
    tokens = [{"id": 400, "content": "<|im_end|>", "special": True}]
    (folder / "tokenizer.json").write_text(json.dumps({"version": "1.0", "added_tokens": tokens, "normalizer": None}))
    assert sniff(folder).generation == {"stop_token_ids": (400,)}
    (folder / "tokenizer.json").write_text('{"added_tokens": [{"id": "x"}], "normalizer": 1}')
    assert sniff(folder).generation == {}
    decoder = {"added_tokens_decoder": {"401": {"content": "<|im_end|>"}}, "eos_token": "<|im_end|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(decoder))
    assert sniff(folder).generation == {"stop_token_ids": (401,)}


def test_a_gguf_whose_end_is_its_beginning(tmp_path: Path) -> None:
    from vigtui.registry.convert.model import convert

    from .test_sniff import changed

    convert(tiny.folder(tmp_path / "hf"), tmp_path / "a.gguf", "f16")
    assert describe(tmp_path / "a.gguf").notices == ()
    wrong = describe(changed(tmp_path / "a.gguf", tmp_path / "b.gguf", tokenizer__ggml__eos_token_id=1))
    assert wrong.generation == {"stop_token_ids": (2,)} and "b.gguf" in wrong.notices[0]
    beyond = describe(changed(tmp_path / "a.gguf", tmp_path / "c.gguf", tokenizer__ggml__eos_token_id=70_000))
    assert "70000" in beyond.notices[0] and beyond.generation == {}


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("group", [32, 128, -1])
def test_bits_and_group_size_come_from_the_shapes(bits: int, group: int) -> None:
    groups = 1 if group == -1 else 512 // group
    layer = {"qweight": (512 * bits // 32, 256), "qzeros": (groups, 256 * bits // 32), "scales": (groups, 256)}
    found = inferred({f"m.{name}": Shape(*shape) for name, shape in layer.items()})
    assert found and (found.method, found.bits, found.group) == ("gptq", bits, group)
    layer["qweight"] = (512, 256 * bits // 32)
    found = inferred({f"m.{name}": Shape(*shape) for name, shape in layer.items()})
    assert found and (found.method, found.bits, found.group) == ("awq", bits, group)


@pytest.mark.parametrize("shapes", [{}, {"qweight": (8, 8)}, {"qweight": (8,), "qzeros": (1,), "scales": (1,)},
                                    {"qweight": (8, 8), "qzeros": (1, 0), "scales": (1, 0)},
                                    {"qweight": (8, 8), "qzeros": (1, 9), "scales": (1, 8)}])  # fmt: skip
def test_shapes_that_say_nothing(shapes: dict[str, tuple[int, ...]]) -> None:
    assert inferred({f"m.{name}": Shape(*shape) for name, shape in shapes.items()}) is None


def test_what_the_settings_say() -> None:
    found = stated({"bits": 4, "group_size": 128, "desc_act": True})
    assert found and found.name == "GPTQ-4bit-128g-actorder"
    found = stated({"w_bit": 4, "q_group_size": 64, "zero_point": True})
    assert found and found.name == "AWQ-4bit-64g"
    assert stated({"bits": "4"}) is None and stated({}) is None


def test_a_gptq_folder_without_and_with_its_settings(tmp_path: Path) -> None:
    layer = {"qweight": np.zeros((8, 32), "i4"), "qzeros": np.zeros((2, 4), "i4"), "scales": np.zeros((2, 32), "f2")}
    folder = tiny.folder(tmp_path / "q", tensors={f"model.layers.0.mlp.up_proj.{n}": a for n, a in layer.items()})
    assert sniff(folder).quantization == "GPTQ-4bit-32g"
    (folder / "quantize_config.json").write_text('{"bits": 4, "group_size": 32, "desc_act": true}')
    assert sniff(folder).quantization == "GPTQ-4bit-32g-actorder"


def test_other_models_are_told_apart(tmp_path: Path) -> None:
    from vigtui.registry.convert.model import convert

    from .test_sniff import changed, refused

    convert(tiny.folder(tmp_path / "hf"), tmp_path / "a.gguf", "f16")
    assert sniff(changed(tmp_path / "a.gguf", tmp_path / "p.gguf", general__type="mmproj")).kind == "projector"
    refused(tmp_path / "p.gguf", "image part")
    assert sniff(tiny.folder(tmp_path / "bert", model_type="camembert")).kind == "embedding"
    refused(tmp_path / "bert", "embeddings")
    (tmp_path / "hf" / "modules.json").write_text("[]")
    assert sniff(tmp_path / "hf").kind == "embedding"
    delta = sniff(tiny.folder(tmp_path / "vicuna-13b-delta-v1.1"))
    assert delta.kind == "safetensors" and "delta" in delta.notices[0]


def test_an_adapter_of_zeros_changes_nothing(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    from .test_sniff import refused

    base = tiny.folder(tmp_path / "hf")
    lora = tiny.adapter(tmp_path / "lora", base)
    assert sniff(lora).kind == "adapter"
    zeros = {name: array * ("lora_A" in name) for name, array in tiny.factors(base, 4).items()}
    save_file(zeros, lora / "adapter_model.safetensors")
    refused(lora, "changes nothing")
    save_file({}, lora / "adapter_model.safetensors")
    refused(lora, "changes nothing")
