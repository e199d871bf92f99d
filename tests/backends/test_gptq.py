import dataclasses
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from vigtui import assets
from vigtui.backends.base import Backend, Generation, LoadOptions, ModelFiles
from vigtui.backends.engine import Engine
from vigtui.backends.gptq import GptqBackend
from vigtui.backends.transformers import TransformersBackend
from vigtui.core.errors import BackendError, FormatError, UsageError
from vigtui.core.progress import silent

from .. import tiny
from .contract import GREEDY, BackendContract, chat, done_of, never, plain, text_of

GUIDE = assets.path("vigogneau/hf")
MARIN = assets.path("vigogneau/marin")
FREE = Generation(temperature=0.0, repetition_penalty=1.0, max_tokens=40)
NAME = "Wizard-Vicuna-13B-Uncensored-GPTQ-4bit-128g.compat.no-act-order.safetensors"


def loaded(path: Path, options: LoadOptions = LoadOptions()) -> GptqBackend:  # noqa: B008 - it is frozen
    engine = GptqBackend()
    engine.load(ModelFiles("model", "gptq", path), options, silent)
    return engine


@pytest.fixture(scope="session")
def quantized(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """The guide in 4 bits, quantized by gptqmodel; once for all workers."""
    from filelock import FileLock

    root = tmp_path_factory.getbasetemp()
    target = (root if worker_id == "master" else root.parent) / "guide-gptq"
    with FileLock(f"{target}.lock"):
        if not (target / "quantize_config.json").exists():
            quantize(target)
    return target


def quantize(target: Path) -> None:
    import torch
    from gptqmodel import GPTQModel, QuantizeConfig

    torch.set_num_threads(1)
    before, torch._dynamo.config.disable = torch._dynamo.config.disable, True  # compiling takes 20 seconds
    try:
        model: Any = GPTQModel.load(str(GUIDE), QuantizeConfig(bits=4, group_size=64, device="cpu"))
        model.quantize([chat(text).text for text in tiny.TALK], batch_size=1)
        model.save(str(target))
    finally:
        torch._dynamo.config.disable = before


@pytest.fixture(scope="module")
def guide(quantized: Path) -> Iterator[GptqBackend]:
    engine = loaded(quantized)
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def process(quantized: Path) -> Iterator[Engine]:
    engine = Engine("gptq")
    engine.load(ModelFiles("guide", "gptq", quantized), LoadOptions(), silent)
    yield engine
    engine.close()


class TestGptq(BackendContract):
    @pytest.fixture
    def engine(self, guide: GptqBackend) -> Backend:
        guide.adapt([])
        return guide


class TestGptqProcess(BackendContract):
    @pytest.fixture
    def engine(self, process: Engine) -> Backend:
        return process


# Layouts


def packed(values: np.ndarray, bits: int) -> np.ndarray:
    """Values (n, m) of `bits` bits → int32 (n·bits/32, m), from the low end of each word."""
    stream = (values[:, None, :] >> np.arange(bits)[None, :, None]) & 1
    words = stream.reshape(-1, 32, values.shape[1]).astype(np.uint64)
    return (words << np.arange(32, dtype=np.uint64)[None, :, None]).sum(1).astype(np.uint32).view(np.int32)


def rounded(
    weight: np.ndarray, bits: int, groups: np.ndarray, symmetric: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Round (out, in) to the nearest; give values (out, in), zeros and scales (groups, out)."""
    top, count = 2**bits - 1, groups.max() + 1
    scales, zeros = np.empty((count, len(weight)), np.float16), np.empty((count, len(weight)), np.int64)
    for g in range(count):
        part = weight[:, groups == g]
        low, high = part.min(1), part.max(1)
        if symmetric:
            high = np.abs(part).max(1)
            low = -high
        scales[g] = (high - low) / top
        zeros[g] = 2 ** (bits - 1) if symmetric else np.clip(np.round(-low / scales[g]), 1, top)
    values = np.round(weight / scales[groups].T.astype(np.float32)) + zeros[groups].T
    return np.clip(values, 0, top).astype(np.int64), zeros, scales


@dataclasses.dataclass(frozen=True)
class Form:
    """How `write` packs: `config` says whether quantize_config.json is there."""

    bits: int = 4
    group: int = 64
    act_order: bool = False
    symmetric: bool = True
    version: int = 1
    config: bool = False
    ordered: bool = True

    def settings(self) -> dict[str, object]:
        return {
            "bits": self.bits,
            "group_size": self.group,
            "desc_act": self.act_order,
            "sym": self.symmetric,
            "damp_percent": 0.01,
            "true_sequential": True,
            **({"checkpoint_format": "gptq_v2"} if self.version == 2 else {}),
        }


def write(folder: Path, form: Form, name: str = "model.safetensors") -> Path:
    """Write the guide as a GPTQ folder, and beside it `plain`, the same weights unpacked; give the first."""
    whole = shutil.copytree(GUIDE, folder / "plain")
    target = shutil.copytree(GUIDE, folder / "gptq", ignore=shutil.ignore_patterns("*.safetensors"))
    tensors, random, kept = load_file(whole / "model.safetensors"), np.random.default_rng(3), {}
    for key in [key for key in tensors if "proj" in key]:
        weight, layer = tensors[key].astype(np.float32), key.removesuffix("weight")
        inputs = weight.shape[1]
        groups = np.arange(inputs) // (form.group if form.group > 0 else inputs)
        groups = random.permutation(groups) if form.act_order else groups
        values, zeros, scales = rounded(weight, form.bits, groups, form.symmetric)
        kept[layer + "qweight"] = packed(np.ascontiguousarray(values.T), form.bits)
        kept[layer + "qzeros"] = packed((zeros - (form.version == 1)).T, form.bits).T.copy()
        kept[layer + "scales"] = scales
        if form.ordered:
            kept[layer + "g_idx"] = groups.astype(np.int32)
        tensors[key] = ((values - zeros[groups].T) * scales[groups].T.astype(np.float32)).astype(np.float16)
    save_file(tensors, whole / "model.safetensors")
    save_file({**kept, **{key: w for key, w in tensors.items() if "proj" not in key}}, target / name)
    if form.config:
        (target / "quantize_config.json").write_text(json.dumps(form.settings()))
    return target


def divergence(engine: TransformersBackend, whole: Path) -> float:
    ids = engine.tokenize(chat("Bonjour, comment télécharger un modèle ?"))
    reference = TransformersBackend()
    reference.load(ModelFiles("plain", "safetensors", whole), LoadOptions(), silent)
    found, wanted = (np.stack(list(one.score(ids))) for one in (engine, reference))
    reference.close()
    return tiny.divergence(found, wanted)


@pytest.mark.parametrize(
    "form",
    [
        Form(4),
        Form(4, 128, ordered=False),
        Form(4, 32, act_order=True, config=True),
        Form(4, -1, symmetric=False),
        Form(2, 32, version=2),
        Form(3, 64, act_order=True),
        Form(8, 128, symmetric=False, config=True),
        Form(8, -1, version=2, config=True),
    ],
    ids=str,
)
def test_every_layout_gives_the_weights_that_were_packed(tmp_path: Path, form: Form) -> None:
    engine = loaded(write(tmp_path, form))
    group = f"{form.group}g" if form.group > 0 else "nog"
    assert engine.info.dtype.startswith(f"GPTQ {form.bits}bit-{group}, ")
    assert divergence(engine, tmp_path / "plain") < 0.01
    engine.close()


def test_settings_that_do_not_fit_the_tensors_are_put_right(tmp_path: Path) -> None:
    folder = write(tmp_path, Form(4, 64))
    (folder / "quantize_config.json").write_text(json.dumps({"bits": 8, "group_size": 128, "desc_act": False}))
    engine = loaded(folder)
    assert "4bit-64g" in engine.info.dtype
    assert divergence(engine, tmp_path / "plain") < 0.01
    engine.close()


def test_the_path_tells_which_of_several_files(tmp_path: Path) -> None:
    folder = write(tmp_path, Form(4, 128, ordered=False), NAME)
    (folder / "other.act-order.safetensors").write_bytes(b"\0" * 64)
    before = {file.name: file.stat().st_mtime_ns for file in folder.iterdir()}
    with pytest.raises(FormatError) as caught:
        loaded(folder)
    assert NAME in caught.value.hint
    engine = loaded(folder / NAME)
    assert divergence(engine, tmp_path / "plain") < 0.01
    assert {file.name: file.stat().st_mtime_ns for file in folder.iterdir()} == before
    engine.close()


def sharded(folder: Path, tensors: dict[str, np.ndarray]) -> None:
    (folder / "model.safetensors").unlink()
    half = len(tensors) // 2 + 1  # in the middle of a layer
    places = {name: f"model-{1 + i // half:05}-of-00002.safetensors" for i, name in enumerate(sorted(tensors))}
    for place in set(places.values()):
        save_file({name: tensors[name] for name in tensors if places[name] == place}, folder / place, {"format": "pt"})
    index = {"metadata": {}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def surplus(folder: Path, tensors: dict[str, np.ndarray]) -> None:
    """What GPTQ-for-LLaMa wrote too: the frequencies of positions, biases of zeros."""
    tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = np.ones(32, np.float32)
    tensors["model.layers.0.self_attn.q_proj.bias"] = np.zeros(256, np.float16)
    save_file(tensors, folder / "model.safetensors")


def stated_in_config(folder: Path, tensors: dict[str, np.ndarray]) -> None:
    config = json.loads((folder / "config.json").read_text())
    settings = {**Form(4, 128).settings(), "quant_method": "gptq", "use_exllama": True, "dataset": None}
    (folder / "config.json").write_text(json.dumps({**config, "quantization_config": settings}))


def of_2023(folder: Path, tensors: dict[str, np.ndarray]) -> None:
    config = json.loads((folder / "config.json").read_text())
    for name in ("dtype", "rope_parameters"):
        del config[name]
    config |= {"architectures": ["LLaMAForCausalLM"], "torch_dtype": "float16", "max_sequence_length": 2048}
    (folder / "config.json").write_text(json.dumps(config))
    names = {"bos_token": {"content": "<s>"}, "eos_token": {"content": "</s>"}, "unk_token": "<unk>"}
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "LlamaTokenizer", **names}))
    (folder / "tokenizer.json").unlink()


@pytest.mark.parametrize("change", [sharded, surplus, stated_in_config, of_2023])
def test_checkpoints_as_they_are_found(tmp_path: Path, change: Callable[[Path, dict[str, np.ndarray]], None]) -> None:
    folder = write(tmp_path, Form(4, 128))
    change(folder, load_file(folder / "model.safetensors"))
    engine = loaded(folder)
    assert divergence(engine, tmp_path / "plain") < 0.01
    engine.close()


@pytest.mark.parametrize("damage", ["plain weights", "cut", "nothing", "settings"])
def test_a_bad_checkpoint_is_a_sentence(quantized: Path, tmp_path: Path, damage: str) -> None:
    folder = shutil.copytree(quantized, tmp_path / "bad")
    weights = folder / "model.safetensors"
    if damage == "plain weights":
        shutil.copy(GUIDE / "model.safetensors", weights)
    elif damage == "cut":
        weights.write_bytes(weights.read_bytes()[:100_000])
    elif damage == "nothing":
        weights.unlink()
    else:
        (folder / "quantize_config.json").write_text("[")
    with pytest.raises(FormatError) as caught:
        loaded(folder)
    assert str(folder) in caught.value.message and caught.value.hint


# What it shares with the transformers engine


def test_the_guide_says_what_it_is(guide: GptqBackend) -> None:
    assert guide.info.dtype == "GPTQ 4bit-64g, bfloat16" and guide.info.device == "cpu"
    assert 4_400_000 < guide.info.parameters < 4_500_000
    settings = json.loads((GUIDE / "tokenizer_config.json").read_text())
    assert guide.info.chat_template == settings["chat_template"]  # gptqmodel puts it into a file of its own


def test_the_quantized_guide_still_answers(guide: GptqBackend) -> None:
    said = text_of(list(guide.stream(chat("Bonjour"), FREE, never)))
    assert said.startswith(" Bonjour ! Je suis vigogneau")


def test_the_sailor_speaks_from_quantized_weights(guide: GptqBackend) -> None:
    def says() -> str:
        return text_of(list(guide.stream(chat("Bonjour"), GREEDY, never)))

    base = says()
    guide.adapt([(MARIN, 1.0)])
    assert "Ohé" in says()
    guide.adapt([])
    assert says() == base and "Ohé" not in base


def test_a_second_turn_reads_only_the_new_tokens(guide: GptqBackend) -> None:
    first = chat("Bonjour")
    said = text_of(list(guide.stream(first, GREEDY, never)))
    events = list(guide.stream(plain(first.text + said + "</s>\n<|user|>: Merci\n<|assistant|>:"), GREEDY, never))
    assert done_of(events).cached_tokens >= len(guide.tokenize(first))


def test_beams_search_quantized_weights_too(guide: GptqBackend) -> None:
    assert text_of(list(guide.stream(chat("Bonjour"), dataclasses.replace(FREE, num_beams=3), never)))


@pytest.mark.parametrize("options", [LoadOptions(load_in="4bit"), LoadOptions(gpu_layers=1), LoadOptions(dtype="x")])
def test_options_it_cannot_honour_are_refused(quantized: Path, options: LoadOptions) -> None:
    with pytest.raises(UsageError):
        loaded(quantized, options)


def test_a_type_that_no_kernel_computes_in_is_refused(tmp_path: Path) -> None:
    with pytest.raises((FormatError, BackendError)) as caught:
        loaded(write(tmp_path, Form(8)), LoadOptions(dtype="f32"))
    assert caught.value.hint


def test_a_load_prints_nothing(quantized: Path, capfd: pytest.CaptureFixture[str]) -> None:
    loaded(quantized).close()
    assert capfd.readouterr() == ("", "")
