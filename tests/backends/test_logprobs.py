"""Logprobs: one definition for llama.cpp and transformers, whatever is done to the scores afterwards."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from vigtui import assets
from vigtui.backends.base import Backend, Generation, LoadOptions, ModelFiles, Notice, Text
from vigtui.backends.text import spelled, unspelled
from vigtui.backends.transformers import TransformersBackend
from vigtui.backends.weigh import LEAST, weigh
from vigtui.core.progress import silent
from vigtui.registry.convert import model

from .contract import GREEDY, chat, chosen_of, done_of, never, plain, text_of
from .test_llama_cpp import Exact

GUIDE = assets.path("vigogneau/hf")
WANTED = replace(GREEDY, max_tokens=16, logprobs=4)


@pytest.fixture(scope="module")
def hf() -> Iterator[TransformersBackend]:
    engine = TransformersBackend()
    engine.load(ModelFiles("f32", "safetensors", GUIDE), LoadOptions(dtype="f32", threads=1), silent)
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def cpp(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Exact]:
    path: Path = tmp_path_factory.mktemp("f32") / "guide.gguf"
    model.convert(GUIDE, path, "f32")
    engine = Exact()
    engine.load(ModelFiles("f32", "gguf", path), LoadOptions(threads=1), silent)
    yield engine
    engine.close()


@pytest.fixture(params=["hf", "cpp"])
def engine(request: pytest.FixtureRequest) -> Backend:
    return request.getfixturevalue(request.param)


@pytest.mark.parametrize("question", ["Bonjour", "Écris un poème 🦙"])
def test_those_of_transformers_are_those_of_llama_cpp(hf: TransformersBackend, cpp: Exact, question: str) -> None:
    ours, theirs = (chosen_of(list(one.stream(chat(question), WANTED, never))) for one in (hf, cpp))
    assert [one.token for one in ours] == [one.token for one in theirs] and len(ours) == 16
    for one, other in zip(ours, theirs, strict=True):
        assert one.logprob == pytest.approx(other.logprob, abs=1e-2)
        assert [value for _text, value in one.likely] == pytest.approx([v for _text, v in other.likely], abs=1e-2)


def test_they_are_the_likelihood_of_the_answer(engine: Backend) -> None:
    ids = engine.tokenize(plain("Le lama et la vigogne"))
    (one,) = chosen_of(list(engine.stream(plain("Le lama et la vigogne"), replace(WANTED, max_tokens=1), never)))
    texts = engine.pieces(range(4096))
    (wanted,) = engine.likelihood([*ids, texts.index(one.token)], len(ids))
    assert one.logprob == pytest.approx(wanted, abs=1e-3)


@pytest.mark.parametrize(
    "values",
    [
        {"repetition_penalty": 1.8, "presence_penalty": 2.0},
        {"temperature": 1.7, "top_k": 2, "seed": 5},
        {"no_repeat_ngram_size": 1},
        {"banned_strings": (" ", "a", "e")},
    ],
)
def test_they_are_those_of_the_model_before_anything_is_done(engine: Backend, values: dict[str, object]) -> None:
    free = chosen_of(list(engine.stream(chat("Bonjour"), WANTED, never)))[0]
    first = chosen_of(list(engine.stream(chat("Bonjour"), replace(WANTED, **values), never)))[0]  # type: ignore[arg-type]
    assert [text for text, _value in first.likely] == [text for text, _value in free.likely]
    assert [value for _text, value in first.likely] == pytest.approx([v for _text, v in free.likely], abs=1e-3)
    assert first.logprob == pytest.approx(dict(first.likely).get(first.token, first.logprob))


def test_what_a_stop_string_holds_back_keeps_its_tokens(engine: Backend) -> None:
    free = list(engine.stream(chat("Bonjour"), WANTED, never))
    whole = text_of(free)
    held = replace(WANTED, stop=(whole[3:-1] + "\0", whole[-2:] + "\0"))
    events = list(engine.stream(chat("Bonjour"), held, never))
    tokens = [one.token for one in chosen_of(events)]
    assert text_of(events) == whole and tokens == [one.token for one in chosen_of(free)]
    pieces = [event for event in events if isinstance(event, Text)]
    assert len(pieces) < len(tokens) and all(len(one.chosen or ()) == one.tokens for one in pieces)


def test_a_character_of_several_tokens_comes_with_all_of_them(random_engine: Backend) -> None:
    events = list(random_engine.stream(chat("a"), replace(WANTED, max_tokens=200), never))
    several = [event for event in events if isinstance(event, Text) and event.tokens > 1]
    done = done_of(events)
    assert several and len(chosen_of(events)) == done.completion_tokens - (done.finish_reason == "stop")
    assert any(one.token.startswith("<0x") for event in several for one in event.chosen or ())


@pytest.fixture(params=["gguf", "safetensors"])
def noise(request: pytest.FixtureRequest, random_hf: Path) -> Iterator[Backend]:
    """A random model in either engine."""
    if request.param == "gguf":
        yield request.getfixturevalue("random_engine")
        return
    engine = TransformersBackend()
    engine.load(ModelFiles("noise", "safetensors", random_hf), LoadOptions(threads=1), silent)
    yield engine
    engine.close()


def test_a_last_token_without_text_has_its_logprob_too(noise: Backend) -> None:
    assert noise.info
    wanted = Generation(temperature=100.0, max_tokens=1, logprobs=1)
    answers = (list(noise.stream(chat("a"), replace(wanted, seed=seed), never)) for seed in range(10_000))
    events = next(one for one in answers if done_of(one).finish_reason == "length" and not text_of(one))
    (one,) = chosen_of(events)
    assert one.token in noise.info.specials and one.token not in noise.info.ends


def test_beams_have_none_and_say_so(hf: TransformersBackend) -> None:
    for values in ({}, {"temperature": 1.0, "seed": 1}):
        wanted = replace(Generation(max_tokens=6, num_beams=2, logprobs=2), **values)  # type: ignore[arg-type]
        events = list(hf.stream(chat("Bonjour"), wanted, never))
        said = [event.text for event in events if isinstance(event, Notice)]
        assert sum("logprobs" in text for text in said) == 1 and not chosen_of(events)
    quiet = list(hf.stream(chat("Bonjour"), Generation(max_tokens=2, num_beams=2, logprobs=0), never))
    assert not any("logprobs" in event.text for event in quiet if isinstance(event, Notice))


def test_logits_are_weighed() -> None:
    logits = np.log(np.array([0.25, 0.5, 0.125, 0.125, 0.0], np.float32), where=[True] * 4 + [False])
    logits[4] = -np.inf
    one = weigh(logits, 2, 3, "abcde".__getitem__)
    assert (one.token, [text for text, _value in one.likely]) == ("c", ["b", "a", "c"])  # c before d, its equal
    assert np.exp([one.logprob, *(value for _text, value in one.likely)]) == pytest.approx([0.125, 0.5, 0.25, 0.125])
    assert weigh(logits, 0, 20, "abcde".__getitem__).likely[-1] == ("e", LEAST)
    huge = weigh(np.array([1e30, 0.0], np.float32), 1, 1, "ab".__getitem__)
    assert huge == weigh(np.array([3e4, 0.0], np.float32), 1, 1, "ab".__getitem__) and huge.logprob == LEAST


@pytest.mark.parametrize("data", [b"a", "é🦙".encode(), b"\xc3", b"\xa9\xff", b"<0x4>", b""])
def test_half_characters_are_spelled_and_read_back(data: bytes) -> None:
    assert unspelled(spelled(data)) == data and spelled(data).isprintable()
