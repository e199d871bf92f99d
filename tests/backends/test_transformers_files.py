import json
import pickle
import shutil
from pathlib import Path

import pytest
from safetensors.numpy import load_file, save_file
from vigtui.backends.base import LoadOptions
from vigtui.backends.transformers import TransformersBackend
from vigtui.core.errors import BackendError, FormatError

from .contract import never, plain, text_of
from .folders import FREE, Touch, changed, loaded
from .folders import noise as noise


def test_pytorch_files_load_like_safetensors(random_hf: Path, noise: TransformersBackend, tmp_path: Path) -> None:
    import torch

    folder = shutil.copytree(random_hf, tmp_path / "bin")
    tensors = {name: torch.from_numpy(array) for name, array in load_file(folder / "model.safetensors").items()}
    (folder / "model.safetensors").unlink()
    torch.save(tensors, folder / "pytorch_model.bin")
    engine = loaded(folder)
    assert text_of(list(engine.stream(plain("a"), FREE, never))) == text_of(list(noise.stream(plain("a"), FREE, never)))
    engine.close()


@pytest.mark.parametrize("beside", [True, False])
def test_an_executing_pickle_runs_nothing(random_hf: Path, tmp_path: Path, beside: bool) -> None:
    folder = shutil.copytree(random_hf, tmp_path / "evil")
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Touch(tmp_path / "ran"), protocol=2))
    if beside:
        loaded(folder).close()
    else:
        (folder / "model.safetensors").unlink()
        with pytest.raises(FormatError):
            loaded(folder)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("damage", ["no weights", "cut", "lacking", "config", "architecture", "no tokenizer"])
def test_a_bad_folder_is_a_sentence(random_hf: Path, tmp_path: Path, damage: str) -> None:
    folder = shutil.copytree(random_hf, tmp_path / "bad")
    weights = folder / "model.safetensors"
    if damage == "no weights":
        weights.unlink()
    elif damage == "cut":
        weights.write_bytes(weights.read_bytes()[:20_000])
    elif damage == "lacking":
        tensors = load_file(weights)
        del tensors["model.layers.1.mlp.up_proj.weight"]
        save_file(tensors, weights)
    elif damage == "config":
        (folder / "config.json").write_text("{")
    elif damage == "architecture":
        (folder / "config.json").write_text(json.dumps({"model_type": "nonsense"}))
    else:
        (folder / "tokenizer.model").unlink()
    with pytest.raises((FormatError, BackendError)) as caught:
        loaded(folder)
    assert str(folder) in caught.value.message and caught.value.hint


CODE = """
import pathlib
pathlib.Path(__file__).parent.joinpath("ran").touch()
pathlib.Path({mark!r}).touch()
from transformers import LlamaConfig, LlamaForCausalLM
class OwnConfig(LlamaConfig):
    model_type = "own"
class OwnModel(LlamaForCausalLM):
    config_class = OwnConfig
"""


def test_code_of_a_model_runs_only_when_it_is_trusted(random_hf: Path, tmp_path: Path) -> None:
    table = {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnModel"}
    folder = changed(random_hf, tmp_path / "own", model_type="own", architectures=["OwnModel"], auto_map=table)
    (folder / "own.py").write_text(CODE.format(mark=str(tmp_path / "ran")))
    with pytest.raises(BackendError) as caught:
        loaded(folder)
    assert "--trust-remote-code" in caught.value.hint
    assert not (tmp_path / "ran").exists()
    engine = loaded(folder, LoadOptions(remote_code=True))
    assert (tmp_path / "ran").exists()
    assert text_of(list(engine.stream(plain("a"), FREE, never)))
    engine.close()
