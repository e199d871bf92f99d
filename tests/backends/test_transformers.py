import dataclasses
import importlib.util
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from vigtui import assets
from vigtui.backends.base import (
    Backend,
    Beams,
    Event,
    Generation,
    LoadOptions,
    ModelFiles,
    Notice,
    Prefill,
    Prompt,
    Text,
)
from vigtui.backends.engine import Engine
from vigtui.backends.llama_cpp import LlamaCppBackend
from vigtui.backends.transformers import TransformersBackend
from vigtui.core.errors import BackendError, ContextError, FormatError, UsageError
from vigtui.core.progress import silent

from .. import tiny
from .contract import GREEDY, BackendContract, chat, done_of, never, plain, text_of

GUIDE = assets.path("vigogneau/hf")
MARIN = assets.path("vigogneau/marin")
FREE = Generation(temperature=0.0, repetition_penalty=1.0, max_tokens=40)
QUESTIONS = ("Bonjour", "Qu'est-ce qu'un LoRA ?", "How do I pull a model?", "  deux  espaces", "Écris un poème 🦙")


def loaded(path: Path, options: LoadOptions = LoadOptions()) -> TransformersBackend:  # noqa: B008 - it is frozen
    engine = TransformersBackend()
    engine.load(ModelFiles("model", "safetensors", path), options, silent)
    return engine


def changed(source: Path, target: Path, **changes: object) -> Path:
    """A copy of a model folder with these values in its config.json."""
    shutil.copytree(source, target)
    config = json.loads((target / "config.json").read_text())
    (target / "config.json").write_text(json.dumps({**config, **changes}))
    return target


@pytest.fixture(scope="module")
def guide() -> Iterator[TransformersBackend]:
    engine = loaded(GUIDE)
    yield engine
    engine.close()


@pytest.fixture
def hf(guide: TransformersBackend) -> TransformersBackend:
    """The guide, with an empty cache and no adapter."""
    guide.adapt([])
    list(guide.stream(plain("Ω"), dataclasses.replace(FREE, max_tokens=1), never))
    return guide


@pytest.fixture(scope="module")
def noise(random_hf: Path) -> Iterator[TransformersBackend]:
    engine = loaded(random_hf)
    yield engine
    engine.close()


def byte_level(path: Path) -> Path:
    """A random GPT-2 with a byte-level tokenizer.json and no BOS; `<|user|>` is an added token that is not special."""
    import torch
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import GPT2Config, GPT2LMHeadModel

    words = Tokenizer(models.BPE())
    words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    words.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=["<|endoftext|>"], initial_alphabet=alphabet, show_progress=False
    )
    words.train_from_iterator(tiny.TALK * 3, trainer)
    words.add_tokens([AddedToken("<|user|>", normalized=False), AddedToken("  ", normalized=False)])
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=words.get_vocab_size(), n_embd=32, n_layer=2, n_head=2, n_positions=256, bos_token_id=0,
        eos_token_id=0, initializer_range=0.4,
    )  # fmt: skip
    GPT2LMHeadModel(config).save_pretrained(path)
    words.save(str(path / "tokenizer.json"))
    (path / "tokenizer_config.json").write_text(
        json.dumps({"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>"})
    )
    return path


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TransformersBackend]:
    engine = loaded(byte_level(tmp_path_factory.mktemp("gpt2") / "hf"))
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def process() -> Iterator[Engine]:
    engine = Engine("transformers")
    engine.load(ModelFiles("vigogneau-hf", "safetensors", GUIDE), LoadOptions(), silent)
    yield engine
    engine.close()


class TestTransformers(BackendContract):
    @pytest.fixture
    def engine(self, hf: TransformersBackend) -> Backend:
        return hf


class TestTransformersRandom(BackendContract):
    """The same promises for a model whose output is noise."""

    @pytest.fixture
    def engine(self, noise: TransformersBackend) -> Backend:
        return noise


class TestTransformersByteLevel(BackendContract):
    """The same promises for a tokenizer without SentencePiece and without BOS, and a table of positions."""

    @pytest.fixture
    def engine(self, gpt2: TransformersBackend) -> Backend:
        return gpt2


class TestTransformersProcess(BackendContract):
    """The same promises behind the pipes of the engine process."""

    @pytest.fixture
    def engine(self, process: Engine) -> Backend:
        return process


# Equal to llama.cpp


@pytest.fixture(scope="module")
def cpp(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LlamaCppBackend]:
    from vigtui.registry.convert import model

    from .test_llama_cpp import Exact

    path = tmp_path_factory.mktemp("f32") / "guide.gguf"
    model.convert(GUIDE, path, "f32")
    engine = Exact()
    engine.load(ModelFiles("f32", "gguf", path), LoadOptions(), silent)
    yield engine
    engine.close()


@pytest.mark.parametrize("text", [*tiny.TEXTS, "  two  spaces", " </s> x", "<s>", "a\ud800b", "\t\0"])
def test_ids_are_those_of_llama_cpp(hf: TransformersBackend, cpp: LlamaCppBackend, text: str) -> None:
    for prompt in (plain(text), Prompt((("<|user|>: ", True), (text, False), ("\n</s> <|assistant|>:", True)))):
        assert hf.tokenize(prompt) == cpp.tokenize(prompt)


def test_texts_of_tokens_are_those_of_llama_cpp(hf: TransformersBackend, cpp: LlamaCppBackend) -> None:
    assert hf.pieces(range(4096)) == cpp.pieces(range(4096))
    assert (hf.info.specials, hf.info.ends) == (cpp.info.specials, cpp.info.ends)


@pytest.mark.parametrize("question", QUESTIONS)
def test_the_greedy_text_is_that_of_llama_cpp(hf: TransformersBackend, cpp: LlamaCppBackend, question: str) -> None:
    wanted = dataclasses.replace(FREE, max_tokens=64, min_tokens=64)
    assert text_of(list(hf.stream(chat(question), wanted, never))) == text_of(
        list(cpp.stream(chat(question), wanted, never))
    )


@pytest.mark.parametrize(
    "values",
    [
        {"repetition_penalty": 1.4},
        {"repetition_penalty": 1.2, "repetition_window": 8},
        {"presence_penalty": 1.5, "frequency_penalty": 0.7},
        {"no_repeat_ngram_size": 2},
        {"banned_strings": ("vig", " de")},
        {"stop": ("modèle",)},
    ],
)
def test_penalties_and_bans_are_those_of_llama_cpp(
    hf: TransformersBackend, cpp: LlamaCppBackend, values: dict[str, object]
) -> None:
    wanted = dataclasses.replace(FREE, max_tokens=48, min_tokens=48, **values)
    ours = list(hf.stream(chat("Bonjour"), wanted, never))
    theirs = list(cpp.stream(chat("Bonjour"), wanted, never))
    assert text_of(ours) == text_of(theirs)
    assert done_of(ours).finish_reason == done_of(theirs).finish_reason
    assert done_of(ours).completion_tokens == done_of(theirs).completion_tokens


def test_scores_are_those_of_llama_cpp(hf: TransformersBackend, cpp: LlamaCppBackend) -> None:
    ids = hf.tokenize(plain("Le lama et la vigogne vivent dans les Andes. " * 12))
    assert len(ids) > 128
    ours, theirs = np.stack(list(hf.score(ids))), np.stack(list(cpp.score(ids)))
    assert ours.dtype == np.float32
    assert np.abs(ours - theirs).max() < 0.01


# The cache


def test_a_second_turn_reads_only_the_new_tokens(hf: TransformersBackend) -> None:
    first = chat("Bonjour")
    said = text_of(list(hf.stream(first, GREEDY, never)))
    second = plain(first.text + said + "</s>\n<|user|>: Merci\n<|assistant|>:")
    events = list(hf.stream(second, GREEDY, never))
    start = next(event for event in events if isinstance(event, Prefill))
    assert start.cached >= len(hf.tokenize(first))
    assert done_of(events).cached_tokens == start.cached
    again = done_of(list(hf.stream(second, GREEDY, never)))
    assert again.prompt_tokens - again.cached_tokens == 1


@pytest.mark.parametrize("beams", [1, 3])
def test_with_and_without_the_cache_the_answer_is_the_same(hf: TransformersBackend, beams: int) -> None:
    wanted = dataclasses.replace(FREE, max_tokens=64, min_tokens=64, num_beams=beams)
    first, second = chat("Bonjour"), chat("Bonjour, comment télécharger un modèle ?")
    alone = text_of(list(hf.stream(second, wanted, never)))
    list(hf.stream(plain("Ω"), wanted, never))
    list(hf.stream(first, wanted, never))
    reused = list(hf.stream(second, wanted, never))
    assert done_of(reused).cached_tokens > 1
    assert text_of(reused) == alone


def test_with_and_without_the_cache_the_logits_are_the_same(hf: TransformersBackend) -> None:
    runner, ids = hf._runner, hf.tokenize(chat("Bonjour, comment télécharger un modèle ?"))
    *_rest, alone = runner.scores(ids)
    list(hf.stream(chat("Bonjour"), FREE, never))
    assert runner.reuse(ids) > 5
    *_steps, after = runner.read(ids)
    assert (after[0] - alone[-1]).abs().max() < 0.05


def test_a_sliding_window_goes_back_as_far_as_it_can(random_hf: Path, tmp_path: Path) -> None:
    changes = {"model_type": "mistral", "architectures": ["MistralForCausalLM"], "sliding_window": 24}
    engine = loaded(changed(random_hf, tmp_path / "mistral", **changes))
    prompt = plain("Le lama et la vigogne vivent dans les Andes, où il fait froid la nuit ; " * 3)
    said = text_of(list(engine.stream(prompt, FREE, never)))
    for text, most in ((prompt.text + "et", True), (prompt.text[:12] + "autre", False), (prompt.text, False)):
        events = list(engine.stream(plain(text), FREE, never))
        assert (done_of(events).cached_tokens > 24) == most
    assert text_of(events) == said
    engine.close()


def test_a_long_prefill_is_stopped_and_can_be_resumed(noise: TransformersBackend) -> None:
    prompt = plain("mot " * 300)
    whole = text_of(list(noise.stream(prompt, FREE, never)))
    list(noise.stream(plain("other"), FREE, never))
    stop = threading.Event()
    events: list[Event] = []
    for event in noise.stream(prompt, FREE, stop.is_set):
        events.append(event)
        if isinstance(event, Prefill) and event.done > event.cached:
            stop.set()
    assert done_of(events).finish_reason == "cancelled" and not text_of(events)
    again = list(noise.stream(prompt, FREE, never))
    assert done_of(again).cached_tokens >= 8
    assert text_of(again) == whole


def test_the_end_of_the_context_is_the_end_of_the_answer(random_hf: Path) -> None:
    engine = loaded(random_hf, LoadOptions(context=40))
    assert engine.info.context == 40
    events = list(engine.stream(plain("a"), dataclasses.replace(FREE, max_tokens=10**6, min_tokens=999), never))
    done = done_of(events)
    assert done.prompt_tokens + done.completion_tokens == 40 and done.finish_reason == "length"
    with pytest.raises(ContextError):
        list(engine.stream(plain("mot " * 40), FREE, never))
    engine.close()


def test_a_table_of_positions_bounds_the_context(tmp_path: Path) -> None:
    engine = loaded(byte_level(tmp_path / "hf"), LoadOptions(context=5000))
    assert engine.info.context == 256
    engine.close()


# Fields


def test_fields_without_effect_are_named(hf: TransformersBackend) -> None:
    def notices(wanted: Generation) -> list[str]:
        events = hf.stream(chat("Bonjour"), dataclasses.replace(wanted, max_tokens=2), never)
        return [event.text for event in events if isinstance(event, Notice)]

    said = notices(Generation(num_beams=2, top_k=5, seed=3, top_p=0.5, min_p=0.1, json_schema="{}"))
    assert sorted(text.split()[0] for text in said) == ["json_schema", "min_p", "seed", "top_k", "top_p"]
    assert "top_k has no effect in pure beam search." in said
    assert notices(Generation(num_beams=2, temperature=0.7, top_k=5, seed=3)) == []
    assert notices(Generation(temperature=0.0, top_k=5)) == ["top_k has no effect at temperature 0."]


def test_a_stop_token_ends_the_answer(hf: TransformersBackend) -> None:
    whole = list(hf.stream(chat("Bonjour"), FREE, never))
    comma = hf.tokenize(plain("a,"))[-1]
    events = list(hf.stream(chat("Bonjour"), dataclasses.replace(FREE, stop_token_ids=(comma,)), never))
    assert text_of(events) == text_of(whole).partition(",")[0]
    assert done_of(events).finish_reason == "stop"


def test_values_that_are_no_numbers_are_a_sentence(random_hf: Path, tmp_path: Path) -> None:
    folder = changed(random_hf, tmp_path / "nan")
    tensors = load_file(folder / "model.safetensors")
    tensors["model.norm.weight"][:] = np.nan
    save_file(tensors, folder / "model.safetensors")
    engine = loaded(folder)
    for wanted in (FREE, Generation(temperature=1.0), Generation(num_beams=2)):
        with pytest.raises(BackendError) as caught:
            list(engine.stream(plain("a"), wanted, never))
        assert "--dtype" in caught.value.hint
    engine.close()


# Adapters


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


# Files


class Touch:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.path),)


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


# Options


def test_options_it_cannot_honour_are_refused(monkeypatch: pytest.MonkeyPatch, random_hf: Path) -> None:
    for options in (
        LoadOptions(gpu_layers=3),
        LoadOptions(device="cuda:99"),
        LoadOptions(device="toaster"),
        LoadOptions(dtype="int3"),
    ):
        with pytest.raises(UsageError):
            loaded(random_hf, options)
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "bitsandbytes" else find(name))
    with pytest.raises(BackendError) as caught:
        loaded(random_hf, LoadOptions(load_in="4bit"))
    assert "pip install bitsandbytes" in caught.value.hint


def test_the_type_and_the_place_are_told(random_hf: Path) -> None:
    steps: list[tuple[str, int, int]] = []
    engine = TransformersBackend()
    options = LoadOptions(device="cpu", dtype="bf16", threads=1)
    info = engine.load(ModelFiles("model", "safetensors", random_hf), options, lambda *step: steps.append(step))
    assert (info.device, info.dtype, info.threads, info.architecture) == ("cpu", "bfloat16", 1, "llama")
    assert text_of(list(engine.stream(chat("a"), FREE, never)))
    loads = [done for stage, done, total in steps if stage == "load" and total > 1]
    assert loads == sorted(loads) and len(loads) > 10
    assert steps[-1] == ("load", 1, 1)
    engine.close()


def test_a_load_prints_nothing(random_hf: Path, capfd: pytest.CaptureFixture[str]) -> None:
    loaded(random_hf).close()
    assert capfd.readouterr() == ("", "")


# Failures

SHORT = """
import resource, sys
from pathlib import Path
import torch
from vigtui.backends.base import Generation, LoadOptions, ModelFiles, Prompt, Text
from vigtui.backends.transformers import TransformersBackend
from vigtui.core.errors import BackendError

engine = TransformersBackend()
engine.load(ModelFiles("m", "safetensors", Path(sys.argv[1])), LoadOptions(threads=1), lambda *_: None)
prompt, said, hint, ballast = Prompt((("a", True),)), "", "", []

def fill():
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used, resource.RLIM_INFINITY))
    for size in (1 << 24, 1 << 20, 1 << 16):
        try:
            while True:
                ballast.append(torch.empty(size, dtype=torch.uint8))
        except RuntimeError:
            pass

hot = Generation(temperature=0.0, repetition_penalty=1.0, max_tokens=1900, min_tokens=1900)
try:
    for event in engine.stream(prompt, hot, lambda: False):
        if isinstance(event, Text):
            said += event.delta
            if len(said) > 20 and not ballast:
                fill()
except BackendError as error:
    hint = error.hint
ballast.clear()
resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
short = Generation(temperature=0.0, repetition_penalty=1.0, max_tokens=8)
again = "".join(e.delta for e in engine.stream(prompt, short, lambda: False) if isinstance(e, Text))
print(len(said), said.startswith(again), "--ctx" in hint)
"""


def test_the_end_of_memory_keeps_the_partial_answer(tmp_path: Path) -> None:
    model = tiny.write_llama(tmp_path / "hf", width=256, heads=4, kv_heads=4, context=2048)
    out = subprocess.run([sys.executable, "-c", SHORT, str(model)], capture_output=True, text=True)
    assert out.returncode == 0, out.stderr[-2000:]
    length, same, hinted = out.stdout.split()[-3:]
    assert int(length) > 20 and same == hinted == "True"


@pytest.mark.parametrize("beams", [1, 3])
def test_a_gpu_without_memory_is_a_sentence(
    noise: TransformersBackend, monkeypatch: pytest.MonkeyPatch, beams: int
) -> None:
    import torch

    model, calls = noise._runner.model, []
    whole, wanted = model.forward, dataclasses.replace(FREE, num_beams=beams)
    said = text_of(list(noise.stream(plain("a"), wanted, never)))

    def forward(**given: object) -> object:
        calls.append(given)
        if len(calls) == 12:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return whole(**given)

    events: list[Event] = []
    with monkeypatch.context() as patch:
        patch.setattr(model, "forward", forward)
        with pytest.raises(BackendError) as caught:
            for event in noise.stream(plain("a"), wanted, never):
                events.append(event)
    assert "--ctx" in caught.value.hint and caught.value.exit_code == 7
    assert any(isinstance(event, Text | Beams) for event in events) and said.startswith(text_of(events))
    again = list(noise.stream(plain("a"), wanted, never))
    assert text_of(again) == said and done_of(again).cached_tokens == 0


def test_a_death_keeps_the_partial_answer_and_the_next_message_works(process: Engine) -> None:
    process.adapt([(MARIN, 1.0)])
    said, first = "", process.pid
    endless = dataclasses.replace(FREE, max_tokens=900, min_tokens=900)
    with pytest.raises(BackendError) as caught:
        for event in process.stream(chat("Bonjour"), endless, never):
            said += event.delta if isinstance(event, Text) else ""
            if len(said) > 20 and first and process.pid == first:
                os.kill(first, signal.SIGKILL)
    assert "SIGKILL" in caught.value.message and len(said) > 20
    assert "Ohé" in text_of(list(process.stream(chat("Bonjour"), GREEDY, never)))
    process.adapt([])


def test_beams_cross_the_pipe(process: Engine) -> None:
    events = list(process.stream(chat("Bonjour"), dataclasses.replace(FREE, num_beams=3, max_tokens=20), never))
    beams = [event for event in events if isinstance(event, Beams)]
    assert len(beams) > 10 and all(len(event.candidates) >= 1 for event in beams)
    assert beams[-1].candidates[0][0] == text_of(events)
