"""Penalties and truncation against the processors of transformers and the samplers of llama.cpp."""

import ctypes
from collections import Counter
from typing import Any

import pytest
from vigtui.backends import llama_native
from vigtui.backends.banned import Banned
from vigtui.backends.base import DEFAULTS, Generation
from vigtui.backends.sampling import Processors


def processors(keep: int = 1, ends: tuple[int, ...] = (2,), **values: Any) -> Processors:
    neutral = Generation(repetition_penalty=1.0, temperature=1.0)
    return Processors(Generation(**values).over(neutral).over(DEFAULTS), ends, keep)


@pytest.fixture
def scores() -> Any:
    import torch

    return torch.randn((3, 200), generator=torch.Generator().manual_seed(1)) * 3


@pytest.fixture
def history() -> Any:
    import torch

    return torch.randint(0, 40, (3, 60), generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("penalty", [0.5, 1.2, 10.0])
def test_repetition_penalty(scores: Any, history: Any, penalty: float) -> None:
    import torch
    from transformers import RepetitionPenaltyLogitsProcessor

    wanted = RepetitionPenaltyLogitsProcessor(penalty)(history, scores.clone())
    assert torch.equal(processors(repetition_penalty=penalty).penalise(scores, history, 5), wanted)


@pytest.mark.parametrize("window", [1, 7, 60, 500])
def test_repetition_window(scores: Any, history: Any, window: int) -> None:
    import torch
    from transformers import RepetitionPenaltyLogitsProcessor

    wanted = RepetitionPenaltyLogitsProcessor(1.3)(history[:, -window:], scores.clone())
    ours = processors(repetition_penalty=1.3, repetition_window=window)
    assert torch.equal(ours.penalise(scores, history, 5), wanted)
    off = processors(repetition_penalty=1.3, presence_penalty=1.0, repetition_window=0)
    assert torch.equal(off.penalise(scores, history, 5), scores)


@pytest.mark.parametrize("size", [1, 2, 3, 61, 100])
def test_no_repeated_ngram(scores: Any, history: Any, size: int) -> None:
    import torch
    from transformers import NoRepeatNGramLogitsProcessor

    history[0, -2:] = history[0, 10:12]
    wanted = NoRepeatNGramLogitsProcessor(size)(history, scores.clone())
    found = processors(no_repeat_ngram_size=size).penalise(scores, history, 5)
    assert torch.equal(found, wanted)
    assert (found == -torch.inf).any() == (size < 4)


def test_min_tokens(scores: Any, history: Any) -> None:
    import torch
    from transformers import MinNewTokensLengthLogitsProcessor

    for generated in (9, 10):
        theirs = MinNewTokensLengthLogitsProcessor(60 - generated, 10, [2, 5], device="cpu")
        found = processors(min_tokens=10, ends=(2, 5)).penalise(scores, history, generated)
        assert torch.equal(found, theirs(history, scores.clone()))


@pytest.mark.parametrize("keep", [1, 2])
@pytest.mark.parametrize(
    "values",
    [
        {"temperature": 0.3},
        {"top_k": 1},
        {"top_k": 500},
        {"top_p": 0.0},
        {"top_p": 0.7},
        {"min_p": 0.2},
        {"min_p": 1.0},
        {"temperature": 1.7, "top_k": 30, "top_p": 0.8, "min_p": 0.05},
    ],
)
def test_truncation_in_its_order(scores: Any, history: Any, values: dict[str, float], keep: int) -> None:
    import torch
    from transformers import (
        LogitsProcessorList,
        MinPLogitsWarper,
        TemperatureLogitsWarper,
        TopKLogitsWarper,
        TopPLogitsWarper,
    )

    made = {
        "temperature": TemperatureLogitsWarper,
        "top_k": lambda k: TopKLogitsWarper(k, min_tokens_to_keep=keep),
        "top_p": lambda p: TopPLogitsWarper(p, min_tokens_to_keep=keep),
        "min_p": lambda p: MinPLogitsWarper(p, min_tokens_to_keep=keep),
    }
    chain = LogitsProcessorList([make(values[name]) for name, make in made.items() if name in values])
    assert torch.equal(processors(keep, **values).truncate(scores), chain(history, scores.clone()))


@pytest.mark.parametrize("window", [-1, 9])
def test_presence_and_frequency_are_those_of_llama_cpp(scores: Any, history: Any, window: int) -> None:
    import torch

    native, size = llama_native.bindings(), scores.shape[1]
    ours = processors(
        repetition_penalty=1.3, presence_penalty=0.8, frequency_penalty=-0.4, repetition_window=window
    ).penalise(scores, history, 5)
    assert max(Counter(history[0].tolist()).values()) > 1
    for row, ids, found in zip(scores, history, ours, strict=True):
        sampler = native.llama_sampler_init_penalties(size, len(ids) if window < 0 else window, 1.3, -0.4, 0.8)
        for token in ids.tolist():
            native.llama_sampler_accept(sampler, token)
        data = (native.llama_token_data * size)(*[native.llama_token_data(i, float(row[i]), 0.0) for i in range(size)])
        array = native.llama_token_data_array(data=data, size=size, selected=-1, sorted=False)
        native.llama_sampler_apply(sampler, ctypes.byref(array))
        theirs = torch.tensor([data[i].logit for i in range(size)])
        native.llama_sampler_free(sampler)
        assert (found - theirs).abs().max() < 1e-5


def test_a_banned_string_is_seen_across_tokens() -> None:
    pieces = [b"a", "é".encode()[:1], "é".encode()[1:], b"abc"]
    banned = Banned(("aé", "bcab", ""), pieces.__getitem__)
    tail = b""
    for token, completes in ((0, False), (1, False), (2, True)):
        assert banned.completes(tail, token) == completes
        tail = banned.after(tail, token)
    assert not banned.completes(b"", 3) and banned.completes(banned.after(b"", 3), 3)
    assert not Banned(("",), pieces.__getitem__)
