import dataclasses
import importlib.util
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from vigtui.backends.base import Backend, Generation, LoadOptions, ModelFiles, Notice, Prompt
from vigtui.backends.engine import Engine
from vigtui.backends.llama_cpp import LlamaCppBackend
from vigtui.backends.transformers import TransformersBackend
from vigtui.core.errors import BackendError, UsageError
from vigtui.core.progress import silent

from .. import tiny
from .contract import BackendContract, chat, done_of, never, plain, text_of
from .folders import FREE, GUIDE, byte_level, loaded
from .folders import guide as guide
from .folders import hf as hf
from .folders import noise as noise
from .folders import process as process

QUESTIONS = ("Bonjour", "Qu'est-ce qu'un LoRA ?", "How do I pull a model?", "  deux  espaces", "Écris un poème 🦙")


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TransformersBackend]:
    engine = loaded(byte_level(tmp_path_factory.mktemp("gpt2") / "hf"))
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
