"""Beam search against transformers' own `generate`, and what streams of it."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from vigtui import assets
from vigtui.backends.base import Beams, Event, Generation, LoadOptions, ModelFiles, Text
from vigtui.backends.transformers import TransformersBackend
from vigtui.core.progress import silent

from .contract import chat, done_of, never, plain, text_of

PLAIN = Generation(repetition_penalty=1.0, max_tokens=30)


class Pair:
    """Our engine, and the same weights in the library's hands."""

    def __init__(self, path: Path) -> None:
        import torch
        from transformers import AutoModelForCausalLM

        torch.set_num_threads(1)
        self.engine = TransformersBackend()
        self.engine.load(ModelFiles("m", "safetensors", path), LoadOptions(threads=1), silent)
        self.model: Any = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)

    def theirs(self, text: str, **values: Any) -> list[int]:
        import torch

        ids = self.engine.tokenize(plain(text))
        settings = {"max_length": None, "pad_token_id": 2, "eos_token_id": 2, "do_sample": False, **values}
        found = self.model.generate(torch.tensor([ids]), attention_mask=torch.ones(1, len(ids)), **settings)
        return found[0, len(ids) :].tolist()

    def ours(self, text: str, generation: Generation) -> list[Event]:
        return list(self.engine.stream(plain(text), generation, never))

    def text(self, tokens: list[int]) -> str:
        return b"".join(map(self.engine._vocabulary.piece, tokens)).decode("utf-8", "replace")


@pytest.fixture(scope="module")
def guide() -> Iterator[Pair]:
    pair = Pair(assets.path("vigogneau/hf"))
    yield pair
    pair.engine.close()


@pytest.fixture(scope="module")
def noise(random_hf: Path) -> Iterator[Pair]:
    pair = Pair(random_hf)
    yield pair
    pair.engine.close()


@pytest.mark.parametrize(("size", "penalty"), [(0, 1.0), (2, 1.3), (3, 10.0)])
@pytest.mark.parametrize("beams", [2, 3, 4, 5])
def test_the_answer_is_that_of_transformers(guide: Pair, noise: Pair, beams: int, size: int, penalty: float) -> None:
    wanted = dataclasses.replace(
        PLAIN, num_beams=beams, repetition_penalty=penalty, no_repeat_ngram_size=size, max_tokens=24
    )
    values = {"num_beams": beams, "repetition_penalty": penalty, "no_repeat_ngram_size": size, "max_new_tokens": 24}
    for pair, text in ((guide, chat("Bonjour").text), (guide, chat("xyzzy").text), (noise, "Le lama"), (noise, "é 🦙")):
        events = pair.ours(text, wanted)
        tokens = pair.theirs(text, **values)
        assert text_of(events) == pair.text(tokens)
        assert done_of(events).completion_tokens == len(tokens)
        assert done_of(events).finish_reason == ("stop" if tokens[-1] == 2 else "length")


@pytest.mark.parametrize("least", [3, 30])
def test_an_end_comes_no_earlier_than_asked_for(guide: Pair, least: int) -> None:
    text = chat("Bonjour").text
    wanted = dataclasses.replace(PLAIN, num_beams=3, min_tokens=least, max_tokens=40)
    tokens = guide.theirs(text, num_beams=3, min_new_tokens=least, max_new_tokens=40)
    assert text_of(guide.ours(text, wanted)) == guide.text(tokens)


def test_without_a_temperature_the_search_is_pure(guide: Pair) -> None:
    text = chat("Bonjour").text
    unset = guide.ours(text, dataclasses.replace(PLAIN, num_beams=3))
    zero = guide.ours(text, dataclasses.replace(PLAIN, num_beams=3, temperature=0.0))
    assert text_of(unset) == text_of(zero) == text_of(guide.ours(text, dataclasses.replace(PLAIN, num_beams=3)))


def test_what_is_shown_is_never_taken_back(noise: Pair) -> None:
    shown, several, steps = "", 0, 0
    for event in noise.ours("Le lama", dataclasses.replace(PLAIN, num_beams=3, max_tokens=60)):
        if isinstance(event, Text):
            shown += event.delta
            steps += 1
        elif isinstance(event, Beams):
            texts = [text for text, _score in event.candidates]
            assert all(text.startswith(shown) for text in texts)
            several += len(set(texts)) > 1
    assert several > 10 and steps > 1


def test_beams_come_best_first(noise: Pair) -> None:
    events = noise.ours("Le lama", dataclasses.replace(PLAIN, num_beams=4))
    *beams, last = [event for event in events if isinstance(event, Beams)]
    assert all(len(event.candidates) == 4 for event in beams)
    for event in beams:
        scores = [score for _text, score in event.candidates]
        assert scores == sorted(scores, reverse=True)
    assert last.candidates[0][0] == text_of(events)


def test_the_score_of_a_beam_is_its_likelihood(guide: Pair) -> None:
    text = chat("Bonjour").text
    *_steps, last = [e for e in guide.ours(text, dataclasses.replace(PLAIN, num_beams=3)) if isinstance(e, Beams)]
    tokens = guide.theirs(text, num_beams=3, max_new_tokens=30)
    ids = guide.engine.tokenize(plain(text))
    found = sum(guide.engine.likelihood([*ids, *tokens], len(ids)))
    assert last.candidates[0][1] == pytest.approx(found, abs=1e-3)


def test_sampled_beams_follow_the_seed(noise: Pair) -> None:
    hot = dataclasses.replace(PLAIN, num_beams=3, temperature=1.5, top_k=50, top_p=0.9)
    events = noise.ours("Le lama", hot)
    again = dataclasses.replace(hot, seed=done_of(events).seed)
    assert text_of(noise.ours("Le lama", again)) == text_of(events)
    others = {text_of(noise.ours("Le lama", dataclasses.replace(hot, seed=seed))) for seed in range(6)}
    assert len(others) > 1


def test_a_narrow_choice_leaves_beam_sampling_enough(noise: Pair) -> None:
    narrow = dataclasses.replace(PLAIN, num_beams=5, temperature=0.7, top_k=1, min_p=1.0, top_p=0.0)
    assert text_of(noise.ours("Le lama", narrow))


def test_a_banned_string_is_in_no_beam(guide: Pair) -> None:
    text = chat("Bonjour").text
    free = text_of(guide.ours(text, dataclasses.replace(PLAIN, num_beams=3)))
    banned = (" vig", "ou", free.split()[2])
    assert all(one in free for one in banned)
    for event in guide.ours(text, dataclasses.replace(PLAIN, num_beams=3, banned_strings=banned)):
        for one in event.candidates if isinstance(event, Beams) else ():
            assert not any(word in one[0] for word in banned)


def test_a_stop_string_ends_a_beam(guide: Pair) -> None:
    text = chat("Bonjour").text
    free = text_of(guide.ours(text, dataclasses.replace(PLAIN, num_beams=3)))
    stop = free[len(free) // 2 :][:4]
    events = guide.ours(text, dataclasses.replace(PLAIN, num_beams=3, stop=(stop,)))
    assert stop not in text_of(events) and done_of(events).finish_reason == "stop"
    assert all(stop not in one for e in events if isinstance(e, Beams) for one, _score in e.candidates)


def test_a_cancelled_search_gives_the_leading_beam(noise: Pair) -> None:
    seen: list[Event] = []
    wanted = dataclasses.replace(PLAIN, num_beams=3, max_tokens=500, min_tokens=500)
    for event in noise.engine.stream(plain("Le lama"), wanted, lambda: len(seen) > 20):
        seen.append(event)
    assert done_of(seen).finish_reason == "cancelled"
    *_steps, last = [event for event in seen if isinstance(event, Beams)]
    assert text_of(seen).startswith(last.candidates[0][0]) and last.candidates[0][0]


@pytest.mark.parametrize("closed", [True, False])
def test_the_cache_serves_the_next_turn(guide: Pair, closed: bool) -> None:
    text, wanted = chat("Bonjour").text, dataclasses.replace(PLAIN, num_beams=4)
    whole = text_of(guide.ours(text, wanted))
    guide.ours("Ω", PLAIN)
    if closed:
        stream = guide.engine.stream(plain(text), wanted, never)
        for event in stream:
            if isinstance(event, Beams) and len(event.candidates[0][0]) > 20:
                break
        stream.close()  # pyright: ignore[reportAttributeAccessIssue]
    else:
        guide.ours(text, wanted)
    prompt = len(guide.engine.tokenize(plain(text)))
    follow = guide.ours(text + whole + "</s>\n<|user|>: Merci\n<|assistant|>:", wanted)
    assert done_of(follow).cached_tokens > prompt
    guide.ours("Ω", PLAIN)
    assert text_of(guide.ours(text + whole + "</s>\n<|user|>: Merci\n<|assistant|>:", wanted)) == text_of(follow)
