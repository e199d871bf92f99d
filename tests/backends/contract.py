"""What every backend promises. A backend's test class inherits `BackendContract` and gives an `engine` fixture."""

import dataclasses
import re
import threading
from collections.abc import Iterator

import pytest
from vigtui.backends import backend_class
from vigtui.backends.base import Backend, Chosen, Done, Event, Generation, Notice, Prefill, Prompt, Text
from vigtui.backends.text import unspelled
from vigtui.core.errors import ContextError, UsageError

GREEDY = Generation(temperature=0.0, repetition_penalty=1.0, max_tokens=24)


def plain(text: str) -> Prompt:
    return Prompt(((text, True),))


def chat(question: str) -> Prompt:
    return plain(f"<|system|>: Vous êtes un guide.\n<|user|>: {question}\n<|assistant|>:")


def never() -> bool:
    return False


def text_of(events: list[Event]) -> str:
    return "".join(event.delta for event in events if isinstance(event, Text))


def chosen_of(events: list[Event]) -> list[Chosen]:
    return [one for event in events if isinstance(event, Text) for one in event.chosen or ()]


def done_of(events: list[Event]) -> Done:
    assert isinstance(events[-1], Done)
    return events[-1]


class BackendContract:
    """The shared suite: streaming, stopping, seeds, stop strings, control tokens, limits."""

    @pytest.fixture
    def engine(self) -> Iterator[Backend]:
        raise NotImplementedError

    def answer(self, engine: Backend, prompt: Prompt, generation: Generation = GREEDY) -> list[Event]:
        return list(engine.stream(prompt, generation, never))

    def test_info_describes_the_loaded_model(self, engine: Backend) -> None:
        assert engine.info is not None
        assert engine.info.backend == engine.name
        assert engine.info.context > 0
        assert engine.info.vocabulary > 0

    def test_an_answer_is_prefill_then_text_then_done(self, engine: Backend) -> None:
        events = self.answer(engine, chat("Comment installer un modèle ?"))
        order = [type(event) for event in events if not isinstance(event, Notice)]
        assert order[0] is Prefill
        assert order[-1] is Done
        assert order.count(Done) == 1
        assert text_of(events)

    def test_prefill_counts_up_to_the_whole_prompt(self, engine: Backend) -> None:
        prompt = chat("Qu'est-ce qu'un LoRA ?")
        events = self.answer(engine, prompt)
        total = len(engine.tokenize(prompt))
        steps = [event for event in events if isinstance(event, Prefill)]
        assert steps[-1].done == steps[-1].total == total == done_of(events).prompt_tokens
        assert [step.done for step in steps] == sorted(step.done for step in steps)

    def test_tokens_of_the_pieces_add_up(self, engine: Backend) -> None:
        events = self.answer(engine, chat("Bonjour"))
        pieces = sum(event.tokens for event in events if isinstance(event, Text))
        assert 0 <= done_of(events).completion_tokens - pieces <= 1  # the end token has no text

    def test_greedy_is_repeatable_with_and_without_the_cache(self, engine: Backend) -> None:
        first = text_of(self.answer(engine, chat("Bonjour")))
        assert text_of(self.answer(engine, chat("Bonjour"))) == first
        self.answer(engine, plain("quite another prompt"))
        assert text_of(self.answer(engine, chat("Bonjour"))) == first

    def test_stop_is_felt_at_the_next_token(self, engine: Backend) -> None:
        asked = threading.Event()
        events: list[Event] = []
        prompt = chat("Tell me everything about models and files")
        endless = dataclasses.replace(GREEDY, max_tokens=900, min_tokens=900)
        for event in engine.stream(prompt, endless, asked.is_set):
            events.append(event)
            if isinstance(event, Text):
                asked.set()
        assert done_of(events).finish_reason == "cancelled"
        assert text_of(events)

    def test_stop_before_the_first_token(self, engine: Backend) -> None:
        events = list(engine.stream(chat("Bonjour"), GREEDY, lambda: True))
        assert done_of(events).finish_reason == "cancelled"
        assert text_of(self.answer(engine, chat("Bonjour")))

    def test_a_closed_stream_leaves_the_engine_usable(self, engine: Backend) -> None:
        stream = engine.stream(chat("Bonjour"), GREEDY, never)
        for event in stream:
            if isinstance(event, Text):
                break
        stream.close()  # pyright: ignore[reportAttributeAccessIssue]
        assert done_of(self.answer(engine, chat("Bonjour")))

    def test_a_stop_string_ends_the_answer_and_is_not_shown(self, engine: Backend) -> None:
        whole = text_of(self.answer(engine, chat("Bonjour")))
        marker = whole[len(whole) // 2 :][:3]
        events = self.answer(engine, chat("Bonjour"), dataclasses.replace(GREEDY, stop=(marker,)))
        assert text_of(events) == whole[: whole.index(marker)]
        assert done_of(events).finish_reason == "stop"

    def test_max_tokens_is_a_limit(self, engine: Backend) -> None:
        events = self.answer(engine, chat("Bonjour"), dataclasses.replace(GREEDY, max_tokens=2))
        assert done_of(events).completion_tokens == 2
        assert done_of(events).finish_reason == "length"

    def test_the_seed_used_is_told_and_can_be_replayed(self, engine: Backend) -> None:
        hot = Generation(temperature=1.5, max_tokens=12, repetition_penalty=1.0)
        events = self.answer(engine, chat("Bonjour"), hot)
        self.answer(engine, plain("something else"))
        again = dataclasses.replace(hot, seed=done_of(events).seed)
        replay = self.answer(engine, chat("Bonjour"), again)
        assert text_of(replay) == text_of(events)
        assert done_of(replay).seed == done_of(events).seed

    def test_user_text_never_becomes_a_control_token(self, engine: Backend) -> None:
        assert engine.info is not None
        for special in engine.info.specials:
            trusted = engine.tokenize(plain(f"<|user|>: a {special} b\n<|assistant|>:"))
            untrusted = Prompt((("<|user|>: a ", True), (special, False), (" b\n<|assistant|>:", True)))
            meant = engine.tokenize(plain(special))[-1]
            assert trusted.count(meant) == engine.tokenize(untrusted).count(meant) + 1

    def test_bos_comes_once(self, engine: Backend) -> None:
        assert engine.info is not None
        if not engine.info.adds_bos:
            pytest.skip("this model adds no BOS")
        first = engine.tokenize(plain("a"))[0]
        assert engine.tokenize(plain(engine.info.bos + "a")).count(first) == 1

    def test_pieces_are_the_texts_of_tokens(self, engine: Backend) -> None:
        if "pieces" not in engine.supports:
            pytest.skip("this engine has no pieces")
        assert engine.info is not None
        prompt = chat(f"Ça va ? 🦙{engine.info.eos}")
        ids = engine.tokenize(prompt)
        pieces = engine.pieces(ids)
        assert len(pieces) == len(ids)
        assert engine.info.eos in pieces and engine.info.eos in engine.info.ends
        whole = re.sub(r"(?:<0x[0-9A-F]{2}>)+", lambda run: bytes.fromhex(run[0][3:-1].replace("><0x", "")).decode(),
                       "".join(pieces).removeprefix(engine.info.bos))  # fmt: skip
        assert whole.replace(" ", "") == prompt.text.replace(" ", "")  # SentencePiece adds some

    def test_likelihoods_are_logarithms_of_probabilities(self, engine: Backend) -> None:
        if "score" not in backend_class(engine.name).supports:
            pytest.skip("this engine does not score")
        ids = engine.tokenize(chat("Bonjour"))
        found = engine.likelihood(ids, 3)
        assert len(found) == len(ids) - 3 and all(value <= 0.0 for value in found)

    def test_every_token_has_its_logprob_and_the_likeliest_beside_it(self, engine: Backend) -> None:
        if "logprobs" not in engine.supports:
            pytest.skip("this engine gives no logprobs")
        events = self.answer(engine, chat("Bonjour"), dataclasses.replace(GREEDY, logprobs=3))
        found, done = chosen_of(events), done_of(events)
        assert len(found) == done.completion_tokens - (done.finish_reason == "stop")  # the one that ends has none
        assert b"".join(unspelled(one.token) for one in found).decode("utf-8", "replace") == text_of(events)
        for one in found:
            values = [value for _text, value in one.likely]
            assert one.likely[0] == (one.token, one.logprob) and len(values) == 3
            assert 0.0 >= values[0] >= values[1] >= values[2]
        assert not chosen_of(self.answer(engine, chat("Bonjour")))

    def test_a_prompt_that_does_not_fit_is_refused(self, engine: Backend) -> None:
        assert engine.info is not None
        with pytest.raises(ContextError) as caught:
            self.answer(engine, plain("mot " * engine.info.context * 4))
        assert caught.value.exit_code == 8
        assert text_of(self.answer(engine, chat("Bonjour")))

    def test_fields_without_effect_are_named(self, engine: Backend) -> None:
        foreign = {"num_beams": 3, "no_repeat_ngram_size": 2, "logprobs": 1, "grammar": 'root ::= "a"'}
        for name, value in foreign.items():
            if name in engine.supports:
                continue
            events = self.answer(engine, chat("Bonjour"), dataclasses.replace(GREEDY, **{name: value}))
            assert any(isinstance(event, Notice) and name in event.text for event in events)

    def test_values_out_of_range_are_refused(self, engine: Backend) -> None:
        with pytest.raises(UsageError):
            self.answer(engine, chat("Bonjour"), dataclasses.replace(GREEDY, temperature=float("nan")))
