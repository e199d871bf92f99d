import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from vigtui import assets
from vigtui.backends.transformers import TransformersBackend
from vigtui.core.errors import FormatError

from .. import tiny
from .contract import GREEDY, chat, done_of, never, plain, text_of
from .folders import FREE, MARIN, Touch, loaded
from .folders import guide as guide
from .folders import hf as hf
from .folders import noise as noise


def test_the_sailor_speaks_when_the_adapter_is_on(hf: TransformersBackend) -> None:
    def says() -> str:
        return text_of(list(hf.stream(chat("Bonjour"), GREEDY, never)))

    base = says()
    for adapters, on in (
        ([(MARIN, 1.0)], True),
        ([(MARIN, 0.0)], False),
        ([(MARIN, 0.5), (MARIN, 0.5)], True),
        ([], False),
    ):
        hf.adapt(adapters)
        assert ("Ohé" in says()) == on
        assert on or says() == base


def merged(base: Path, adapters: list[tuple[Path, float, float]], target: Path) -> Path:
    """A copy of `base` with scale·(alpha/r)·B·A of each adapter added to its weights."""
    shutil.copytree(base, target)
    tensors = load_file(target / "model.safetensors")
    for path, scale, factor in adapters:
        factors = load_file(path / "adapter_model.safetensors")
        for name in [name for name in factors if "lora_A" in name]:
            weight = name.removeprefix("base_model.model.").replace(".lora_A.weight", ".weight")
            tensors[weight] += scale * factor * (factors[name.replace("lora_A", "lora_B")] @ factors[name])
    save_file(tensors, target / "model.safetensors")
    return target


def test_adapters_add_up_to_merged_weights(random_hf: Path, noise: TransformersBackend, tmp_path: Path) -> None:
    one = tiny.adapter(tmp_path / "one", random_hf, rank=4)
    two = tiny.adapter(tmp_path / "two", random_hf, rank=8, seed=9, r=8, use_rslora=True)
    ids = noise.tokenize(plain("Bonjour, comment installer un modèle ?"))
    base = np.stack(list(noise.score(ids)))
    whole = loaded(merged(random_hf, [(one, 0.5, 8 / 4), (two, -0.25, 8 / 8**0.5)], tmp_path / "merged"))
    noise.adapt([(one, 0.5), (two, -0.25)])
    found = np.stack(list(noise.score(ids)))
    assert np.abs(found - np.stack(list(whole.score(ids)))).max() < 1e-3
    assert np.abs(found - base).max() > 1
    noise.adapt([])
    assert (np.stack(list(noise.score(ids))) == base).all()
    whole.close()


def test_an_adapter_switch_drops_the_cache_of_the_old_set(hf: TransformersBackend) -> None:
    list(hf.stream(chat("Bonjour"), GREEDY, never))
    hf.adapt([(MARIN, 1.0)])
    assert done_of(list(hf.stream(chat("Bonjour"), GREEDY, never))).cached_tokens == 0
    hf.adapt([(MARIN, 1.0)])
    assert done_of(list(hf.stream(chat("Bonjour"), GREEDY, never))).cached_tokens > 0


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"use_dora": True}, "use_dora"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"bias": "all"}, "bias all"),
        ({"peft_type": "IA3"}, "IA3"),
        ({"init_lora_weights": "pissa"}, "pissa"),
        ({"r": 16}, "rank 4"),
        ({"lora_alpha": None}, "lora_alpha"),
    ],
)
def test_an_adapter_that_would_not_have_its_effect_is_refused(
    random_hf: Path, noise: TransformersBackend, tmp_path: Path, changes: dict[str, object], word: str
) -> None:
    path = tiny.adapter(tmp_path / "lora", random_hf, **changes)
    with pytest.raises(FormatError) as caught:
        noise.adapt([(path, 1.0)])
    assert word in caught.value.message


@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "no json", "gguf"])
def test_a_bad_adapter_is_refused_and_those_before_stay(
    random_hf: Path, noise: TransformersBackend, tmp_path: Path, damage: str
) -> None:
    good = tiny.adapter(tmp_path / "good", random_hf)
    noise.adapt([(good, 1.0)])
    said = text_of(list(noise.stream(plain("a"), FREE, never)))
    path = tiny.adapter(tmp_path / "bad", random_hf)
    weights = path / "adapter_model.safetensors"
    if damage == "missing":
        weights.unlink()
    elif damage == "empty":
        save_file({}, weights)
    elif damage == "cut":
        weights.write_bytes(weights.read_bytes()[:5000])
    elif damage == "no json":
        (path / "adapter_config.json").write_text("[")
    else:
        path = assets.path("vigogneau/marin.gguf")
    with pytest.raises(FormatError):
        noise.adapt([(path, 1.0)])
    assert text_of(list(noise.stream(plain("a"), FREE, never))) == said
    noise.adapt([])


def test_an_adapter_of_another_base_is_refused(noise: TransformersBackend) -> None:
    with pytest.raises(FormatError) as caught:
        noise.adapt([(MARIN, 1.0)])
    assert str(MARIN) in caught.value.message


def test_a_pickled_adapter_is_read_and_runs_nothing(
    random_hf: Path, noise: TransformersBackend, tmp_path: Path
) -> None:
    import torch

    path = tiny.adapter(tmp_path / "lora", random_hf)
    ids = noise.tokenize(plain("Bonjour"))
    noise.adapt([(path, 1.0)])
    wanted = np.stack(list(noise.score(ids)))
    other = shutil.copytree(path, tmp_path / "other")
    tensors = {name: torch.from_numpy(array) for name, array in load_file(path / "adapter_model.safetensors").items()}
    (other / "adapter_model.safetensors").unlink()
    torch.save(tensors, other / "adapter_model.bin")
    noise.adapt([(other, 1.0)])
    assert (np.stack(list(noise.score(ids))) == wanted).all()
    noise.adapt([])
    of_2023 = shutil.copytree(other, tmp_path / "of_2023")
    (of_2023 / "adapter_model.bin").rename(of_2023 / "pytorch_model.bin")
    torch.save({}, of_2023 / "adapter_model.bin")
    noise.adapt([(of_2023, 1.0)])
    assert (np.stack(list(noise.score(ids))) == wanted).all()
    noise.adapt([])
    evil = shutil.copytree(other, tmp_path / "evil")
    (evil / "adapter_model.bin").write_bytes(pickle.dumps(Touch(tmp_path / "ran"), protocol=2))
    with pytest.raises(FormatError):
        noise.adapt([(evil, 1.0)])
    assert not (tmp_path / "ran").exists()
