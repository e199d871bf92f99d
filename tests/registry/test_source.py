"""What a person may name as a source: whole names, paths, what only begins a name, and what cannot be started from."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from vigtui.core.errors import UsageError
from vigtui.registry.store import Registry
from vigtui.registry.workshop import source

from .. import tiny
from .lora import torch_file


@pytest.fixture
def llama(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder `llama` where one stands."""
    monkeypatch.chdir(tmp_path)
    return tiny.write_llama(tmp_path / "llama")


def test_a_path_goes_before_the_beginning_of_a_name(llama: Path) -> None:
    product = Registry().add(tiny.write_gguf(llama.parent / "made" / "llama.gguf"), "llama:Q4_K_M")
    assert source.find("llama").path.resolve() == llama
    assert source.find("llama:Q4_K_M").record == product
    shutil.rmtree(llama)
    llama.mkdir()  # a folder of something else
    assert source.find("llama").record == product


def test_a_whole_name_goes_before_a_path(llama: Path) -> None:
    known = Registry().add(tiny.write_gguf(llama.parent / "made" / "other.gguf"), "llama:")
    assert source.find("llama").record == known


def test_no_name_is_not_the_folder_one_stands_in(llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(llama)
    assert source.find(".").path.resolve() == llama
    with pytest.raises(UsageError, match="empty"):
        source.find("")


def test_a_part_of_meta_s_checkpoint_stands_for_its_folder(tmp_path: Path) -> None:
    for name in ("consolidated.00.pth", "consolidated.01.pth"):
        torch_file(tmp_path / name, {"norm.weight": np.ones(4, np.float16)})
    (tmp_path / "params.json").write_text("{}")
    (tmp_path / "tokenizer.model").write_bytes(tiny.sentencepiece_model())
    found = source.at(tmp_path / "consolidated.01.pth")
    assert (found.kind, found.path) == ("meta", tmp_path) and len(found.files) == 4


def test_a_gptq_folder_is_refused_by_its_name(llama: Path) -> None:
    tensors = {
        "model.layers.0.mlp.up_proj.qweight": np.zeros((8, 64), np.int32),
        "model.layers.0.mlp.up_proj.qzeros": np.zeros((1, 8), np.int32),
        "model.layers.0.mlp.up_proj.scales": np.ones((1, 64), np.float16),
    }
    settings = {"quant_method": "gptq", "bits": 4, "group_size": 64, "desc_act": False, "sym": True}
    packed = tiny.folder(llama.parent / "packed", tensors, quantization_config=settings)
    Registry().add(packed, "packed:GPTQ")
    for text in (str(packed), "packed:GPTQ"):
        with pytest.raises(UsageError) as caught:
            source.find(text)
        assert f"{text} is quantized already" in caught.value.message and caught.value.hint
