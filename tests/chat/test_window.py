"""What is sent is what a plain search would choose, counted exactly."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vigtui.backends.base import Message, Prompt
from vigtui.chat import formats
from vigtui.chat.formats import Format, System
from vigtui.chat.render import render
from vigtui.chat.window import Fitted, budget, fit
from vigtui.core.errors import ContextError

from .toy import LLAMA, talk, tokens

VIGOGNE = formats.get("vigogne-chat-v2")


def count(prompt: Prompt) -> int:
    return len(tokens(prompt))


def reference(
    form: Format, messages: list[Message], limit: int, memory: int | None, pinned: set[int]
) -> tuple[int, ...] | None:
    """Try every number of dropped rounds, from none on; give what was dropped, None when nothing helps."""
    first = 1 if messages[0].role == "system" else 0
    starts = [i for i in range(first, len(messages)) if messages[i].role == "user"]
    rounds = [range(a, b) for a, b in pairwise(starts)]
    loose = [one for one in rounds if not set(one) & pinned]
    ground = [*messages[:first], *messages[starts[-1] :]]
    base = count(render(form, ground, LLAMA))
    for number in range(len(loose) + 1):
        dropped = {i for one in loose[:number] for i in one}
        size = count(render(form, [m for i, m in enumerate(messages) if i not in dropped], LLAMA))
        within = memory is None or size - base <= memory
        if size < limit and (within or number == len(loose)):
            return tuple(sorted(dropped))
    return None


words = st.integers(0, 30).map(lambda n: " ".join(["mot"] * n) or "</s>")
talks = st.lists(words, min_size=1, max_size=15).map(lambda texts: texts if len(texts) % 2 else texts[1:] or ["a"])


@given(
    texts=talks,
    limit=st.integers(60, 500),
    memory=st.none() | st.integers(0, 300),
    pinned=st.sets(st.integers(0, 14), max_size=2),
    system=st.none() | st.just("Sois bref."),
    id=st.sampled_from(["vigogne-chat-v2", "raw", "llama-2"]),
    error=st.sampled_from([0.3, 1.0, 3.0]),
)
def test_as_a_plain_reference(
    texts: list[str], limit: int, memory: int | None, pinned: set[int], system: str | None, id: str, error: float
) -> None:
    def odd(prompt: Prompt) -> int:
        """Counts of rounds alone mislead by a factor; those of whole prompts do not."""
        return int(count(prompt) * (1 if prompt.messages else error))

    texts = texts if len(texts) % 2 else texts[:-1]
    messages = [*([Message("system", system)] if system else []), *talk(*texts)]
    form = formats.get(id)
    expected = reference(form, messages, limit, memory, pinned)
    if expected is None:
        with pytest.raises(ContextError):
            fit(form, messages, LLAMA, odd, limit, memory, pinned)
        return
    fitted = fit(form, messages, LLAMA, odd, limit, memory, pinned)
    assert fitted.dropped == expected
    kept = [message for i, message in enumerate(messages) if i not in expected]
    assert fitted.prompt == render(form, kept, LLAMA)
    assert fitted.tokens == count(fitted.prompt) < limit


def long(rounds: int, size: int = 10) -> list[Message]:
    return talk(*(f"{i} " + "mot " * size for i in range(2 * rounds)), "fin")


def test_strictly_below_the_limit() -> None:
    messages = long(3)
    whole = count(render(VIGOGNE, messages, LLAMA))
    assert fit(VIGOGNE, messages, LLAMA, count, whole + 1).dropped == ()
    assert fit(VIGOGNE, messages, LLAMA, count, whole).dropped == (0, 1)


@pytest.mark.parametrize("error", [0.0, 0.5, 1.0, 2.0])
def test_a_misleading_estimate_is_corrected(error: float) -> None:
    messages = talk(*("mot " * (20 - i) for i in range(20)), "fin")
    fitted = fit(VIGOGNE, messages, LLAMA, lambda prompt: int(count(prompt) * (1 if prompt.messages else error)), 450)
    assert fitted.tokens < 450 and fitted.dropped == reference(VIGOGNE, messages, 450, None, set())


def test_memory_caps_the_history() -> None:
    messages = long(5)
    base = count(render(VIGOGNE, messages[-1:], LLAMA))
    for memory in (0, 60, 120, 10_000):
        assert fit(VIGOGNE, messages, LLAMA, count, 2048, memory).tokens - base <= memory
    assert fit(VIGOGNE, messages, LLAMA, count, 2048, 0).dropped == tuple(range(10))


def test_a_pinned_message_keeps_its_round() -> None:
    fitted = fit(VIGOGNE, long(6), LLAMA, count, 200, pinned=[3])
    assert {2, 3}.isdisjoint(fitted.dropped) and {0, 1, 4, 5} <= set(fitted.dropped)


def test_what_cannot_fit_is_said() -> None:
    with pytest.raises(ContextError, match=r"tokens.*leaves 50") as error:
        fit(VIGOGNE, long(2), LLAMA, count, 50)
    assert error.value.exit_code == 8
    with pytest.raises(ContextError, match=r"needs ≈ \d+ tokens"):
        fit(VIGOGNE, long(2), LLAMA, count, 50, about=True)
    with pytest.raises(ContextError, match="Unpin"):
        fit(VIGOGNE, long(6), LLAMA, count, 200, pinned=range(12))


def test_the_state_of_the_system_message_counts() -> None:
    fitted = fit(VIGOGNE, talk("a"), LLAMA, count, 100, system=System("none"))
    assert fitted.prompt.text == "<|user|>: a\n<|assistant|>:"


def test_ten_thousand_messages_take_few_counts() -> None:
    calls = [0, 0]

    def counting(prompt: Prompt) -> int:
        calls[0] += 1
        calls[1] += len(prompt.text)
        return count(prompt)

    fitted: Fitted = fit(VIGOGNE, long(5000), LLAMA, counting, 1500)
    assert 1400 < fitted.tokens < 1500
    assert calls[0] < 60 and calls[1] < 100_000


def test_the_budget_leaves_room_for_the_answer() -> None:
    assert budget(4096) == 3072
    assert budget(1024) == 768
    assert budget(4096, 100) == 3996
    assert budget(4096, 4000) == 3072
