"""What each policy gives up, compared with a plain search that renders and counts every possibility."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vigtui.backends.base import Message, Prompt
from vigtui.chat import formats
from vigtui.chat.formats import Format
from vigtui.chat.render import draft, render
from vigtui.chat.window import Fitted, fit
from vigtui.core.errors import ContextError

from .toy import LLAMA, talk, tokens

Choice = tuple[str, tuple[int, ...], tuple[int, ...], int]
"""The text of a prompt, the positions dropped and shortened, and the history's characters."""


def count(prompt: Prompt) -> int:
    return len(tokens(prompt))


def rounds(messages: list[Message]) -> tuple[list[range], int]:
    """The rounds before the last message, and the position of that one."""
    starts = [i for i, message in enumerate(messages) if message.role == "user"]
    return [range(a, b) for a, b in pairwise(starts)], starts[-1]


def without(messages: list[Message], gone: set[int]) -> list[Message]:
    return [message for i, message in enumerate(messages) if i not in gone]


def by_rounds(form: Format, messages: list[Message], pinned: set[int]) -> Iterator[Choice]:
    """Everything, then one round less each time."""
    every, _last = rounds(messages)
    loose = [one for one in every if not set(one) & pinned]
    if form.policy == "rounds-keep-first" and loose and loose[0] == every[0]:
        loose.append(loose.pop(0))
    for number in range(len(loose) + 1):
        gone = {i for one in loose[:number] for i in one}
        made = draft(form, without(messages, gone), LLAMA)
        dialogue = "".join(made.segments[1:-1]) if number < len(every) else ""
        yield made.text, tuple(sorted(gone)), (), len(dialogue)


def by_characters(form: Format, messages: list[Message], pinned: set[int]) -> Iterator[Choice]:
    """Everything, then one character less each time, from the oldest round that is not pinned; </s> goes whole."""
    every, last = rounds(messages)
    loose = [one for one in every if not set(one) & pinned]
    gone: set[int] = set()
    for one in loose:
        here = without(messages, gone)
        made = draft(form, here, LLAMA)
        order = [r for r in [*every, range(last, last + 1)] if not set(r) & gone]
        at = 1 + order.index(one)
        head, segment, rest = made.segments[:at], made.segments[at], made.segments[at + 1 :]
        for cut in range(len(segment)):
            if any(segment.startswith("</s>", cut - back) for back in (1, 2, 3) if cut >= back):
                continue
            parts = (*head, segment[cut:], *rest)
            yield "".join(parts), tuple(sorted(gone)), (), len("".join(parts[1:-1]))
        gone |= set(one)
    made = draft(form, without(messages, gone), LLAMA)
    yield made.text, tuple(sorted(gone)), (), len("".join(made.segments[1:-1])) if pinned else 0


def by_halves(form: Format, messages: list[Message], pinned: set[int]) -> Iterator[Choice]:
    """Everything, then one round halved after the other, then one round less each time."""
    every, _last = rounds(messages)
    loose = [one for one in every if not set(one) & pinned]
    halved = list(messages)
    yield render(form, halved, LLAMA).text, (), (), 0
    short: list[int] = []
    for one in loose:
        longest = max(one, key=lambda i: len(messages[i].content))
        content = messages[longest].content
        halved[longest] = replace(messages[longest], content=content[: len(content) // 2])
        short.append(longest)
        yield render(form, halved, LLAMA).text, (), tuple(short), 0
    for number in range(1, len(loose) + 1):
        gone = {i for one in loose[:number] for i in one}
        yield render(form, without(halved, gone), LLAMA).text, tuple(sorted(gone)), tuple(short[number:]), 0


WAYS = {
    "vigogne-chat-v2": by_rounds,
    "vigogne-chat-v1": by_rounds,
    "vigogne-chat-v3": by_rounds,
    "vicuna-v1.1": by_characters,
    "cv-bot-user": by_characters,
    "cv-chat-instruct": by_characters,
    "cv-interaction": by_characters,
    "cv-chat": by_halves,
}


def reference(form: Format, messages: list[Message], limit: int, memory: int | None, pinned: set[int]) -> Choice | None:
    """Give the first possibility that fits, the last one when only the cap of the history is in its way."""
    _every, last = rounds(messages)
    alone = count(render(form, messages[last:], LLAMA))
    memory = form.memory if memory is None else memory
    below = limit + 1 if form.policy == "rounds-or-fail" else limit
    if alone >= below:
        return None
    choices = list(WAYS[form.id](form, messages, pinned))
    for choice in choices:
        size = count(Prompt(((choice[0], True),)))
        history = choice[3] if form.policy == "tail-chars" else size - alone
        if size < below and (memory is None or history <= memory):
            return choice
    return choices[-1] if count(Prompt(((choices[-1][0], True),))) < below else None


words = st.integers(0, 12).map(lambda n: " ".join(["mot"] * n)) | st.sampled_from(["", "a\nb", "é, è; ù.", " x "])
talks = st.lists(words, min_size=1, max_size=9).map(lambda texts: texts if len(texts) % 2 else texts[1:] or ["a"])


@pytest.mark.parametrize("id", WAYS)
@given(
    texts=talks.filter(lambda texts: len(texts) % 2 == 1),
    limit=st.integers(20, 260),
    memory=st.none() | st.integers(0, 150),
    pinned=st.sets(st.integers(0, 8), max_size=1),
    error=st.sampled_from([0.3, 1.0, 3.0]),
)
def test_as_a_plain_reference(
    id: str, texts: list[str], limit: int, memory: int | None, pinned: set[int], error: float
) -> None:
    def odd(prompt: Prompt) -> int:
        """Counts of rounds alone mislead by a factor; those of whole prompts do not."""
        return int(count(prompt) * (1 if prompt.messages else error))

    form, messages = formats.get(id), talk(*texts)
    pinned = {i for i in pinned if i < len(messages) - 1}
    expected = reference(form, messages, limit, memory, pinned)
    if expected is None:
        with pytest.raises(ContextError):
            fit(form, messages, LLAMA, odd, limit, memory, pinned)
        return
    fitted = fit(form, messages, LLAMA, odd, limit, memory, pinned)
    assert fitted.prompt.text == expected[0]
    assert fitted.tokens == count(fitted.prompt) <= limit
    if WAYS[id] is not by_characters:
        assert (fitted.dropped, fitted.shortened) == expected[1:3]
    assert set(fitted.dropped).isdisjoint(fitted.shortened)
    assert not pinned & {*fitted.dropped, *fitted.shortened}


def test_the_limit_of_v1_may_be_reached() -> None:
    form, messages = formats.get("vigogne-chat-v1"), talk("a", "b", "c")
    whole = count(render(form, messages, LLAMA))
    assert fit(form, messages, LLAMA, count, whole).dropped == ()
    assert fit(form, messages, LLAMA, count, whole - 1).dropped == (0, 1)


def test_v3_keeps_its_first_round() -> None:
    form, messages = (
        formats.get("vigogne-chat-v3"),
        talk("premier", "un", "deuxième", "deux", "troisième", "trois", "x"),
    )
    whole = count(render(form, messages, LLAMA))
    assert fit(form, messages, LLAMA, count, whole).dropped == (2, 3)
    alone = count(render(form, messages[-1:], LLAMA))
    assert fit(form, messages, LLAMA, count, alone + 1).dropped == (0, 1, 2, 3, 4, 5)


@pytest.mark.parametrize(
    ("limit", "end", "dropped", "shortened"),
    [
        (73, "USER: bonjour ASSISTANT: salut toi</s>USER: fin ASSISTANT:", (), ()),
        (70, " bonjour ASSISTANT: salut toi</s>USER: fin ASSISTANT:", (), ()),
        (68, " ASSISTANT: salut toi</s>USER: fin ASSISTANT:", (0,), ()),
        (63, " toi</s>USER: fin ASSISTANT:", (0,), (1,)),
        (61, "USER: fin ASSISTANT:", (0, 1), ()),
    ],
)
def test_a_tail_says_what_it_left_out(limit: int, end: str, dropped: object, shortened: object) -> None:
    form = formats.get("vicuna-v1.1")
    fitted = fit(form, talk("bonjour", "salut toi", "fin"), LLAMA, count, limit)
    assert fitted.prompt.text == f"{form.system} {end}"
    assert (fitted.dropped, fitted.shortened) == (dropped, shortened)


def test_a_cut_makes_no_control_token() -> None:
    """The system text ends as a special token begins, and what the user typed goes on as it ends."""
    template = "{{ system }}{% for r in rounds %}{{ cut ~ r.user ~ (r.assistant or '') }}{% endfor %}{{ cut }}"
    form = Format(id="x", template=template, system="<", policy="tail-chars", memory=9)
    for text in ("mot /s>", "mot /s> a", "/s>/s>/s>", "</s></s></s>"):
        prompt = fit(form, talk(text, "", "fin"), LLAMA, count, 200).prompt
        assert "</s>" not in "".join(part for part, trusted in prompt.pieces if trusted)


def test_a_template_without_marks_only_drops_rounds() -> None:
    form = Format(id="x", template="{% for m in messages %}{{ m.content }} {% endfor %}", policy="tail-tokens")
    assert fit(form, talk("a b", "c", "d"), LLAMA, count, 8).dropped == (0, 1)


def test_the_formats_own_cap_can_be_changed() -> None:
    form, messages = formats.get("cv-interaction"), talk("a" * 300, "b", "c")
    assert fit(form, messages, LLAMA, count, 2000).shortened == (0,)
    assert fit(form, messages, LLAMA, count, 2000, 1000).shortened == ()
    assert fit(form, messages, LLAMA, count, 2000, 0).dropped == (0, 1)


@pytest.mark.parametrize("id", ["vigogne-chat-v3", "vigogne-chat-v1", "vicuna-v1.1", "cv-chat", "cv-chat-instruct"])
def test_ten_thousand_messages_take_few_counts(id: str) -> None:
    calls = [0, 0]

    def counting(prompt: Prompt) -> int:
        calls[0] += 1
        calls[1] += len(prompt.text)
        return count(prompt)

    messages = talk(*(f"{i} " + "mot " * 10 for i in range(10_000)), "fin")
    fitted: Fitted = fit(formats.get(id), messages, LLAMA, counting, 1500, 10**6)
    assert 1350 < fitted.tokens <= 1500
    assert calls[0] < 250 and calls[1] < 250_000
