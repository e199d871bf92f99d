import dataclasses
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from vigtui import assets
from vigtui.backends.base import Backend, Generation, LoadOptions, ModelFiles, Notice, Prefill, Text
from vigtui.backends.llama_cpp import LlamaCppBackend
from vigtui.core.errors import BackendError, CapacityError, ContextError, FormatError, UsageError
from vigtui.core.progress import silent

from .contract import GREEDY, BackendContract, chat, done_of, never, plain, text_of

FREE = Generation(temperature=0.0, repetition_penalty=1.0, max_tokens=40)


class TestLlamaCpp(BackendContract):
    @pytest.fixture
    def engine(self, guide_engine: LlamaCppBackend) -> Backend:
        return guide_engine


class TestLlamaCppRandom(BackendContract):
    """The same promises for a model whose output is noise."""

    @pytest.fixture
    def engine(self, random_engine: LlamaCppBackend) -> Backend:
        return random_engine


class Exact(LlamaCppBackend):
    """Without flash attention and with an F32 cache, so that two ways to the same logits can be compared."""

    def _tune(self, params) -> None:  # type: ignore[override]
        params.flash_attn_type, params.type_k, params.type_v = 0, 0, 0


@pytest.fixture
def exact(random_model: ModelFiles) -> Iterator[Exact]:
    engine = Exact()
    engine.load(random_model, LoadOptions(), silent)
    yield engine
    engine.close()


def test_a_second_turn_reads_only_the_new_tokens(guide_engine: LlamaCppBackend) -> None:
    first = chat("Bonjour")
    said = text_of(list(guide_engine.stream(first, GREEDY, never)))
    second = plain(first.text + said + "</s>\n<|user|>: Merci\n<|assistant|>:")
    events = list(guide_engine.stream(second, GREEDY, never))
    start = next(event for event in events if isinstance(event, Prefill))
    assert start.cached >= len(guide_engine.tokenize(first))
    assert done_of(events).cached_tokens == start.cached


def test_the_same_prompt_reads_one_token(random_engine: LlamaCppBackend) -> None:
    list(random_engine.stream(chat("Bonjour"), FREE, never))
    done = done_of(list(random_engine.stream(chat("Bonjour"), FREE, never)))
    assert done.prompt_tokens - done.cached_tokens == 1


def test_a_long_prefill_is_stopped_and_can_be_resumed(random_engine: LlamaCppBackend) -> None:
    prompt = plain("mot " * 300)
    whole = text_of(list(random_engine.stream(prompt, FREE, never)))
    list(random_engine.stream(plain("other"), FREE, never))
    stop = threading.Event()
    for event in random_engine.stream(prompt, FREE, stop.is_set):
        if isinstance(event, Prefill) and event.done >= 512:
            stop.set()
    again = list(random_engine.stream(prompt, FREE, never))
    assert done_of(again).cached_tokens >= 512
    assert text_of(again) == whole


def test_stopping_inside_one_batch_aborts_the_computation(random_engine: LlamaCppBackend) -> None:
    asked = time.perf_counter()
    events = list(random_engine.stream(plain("mot " * 500), FREE, lambda: time.perf_counter() > asked + 0.001))
    assert done_of(events).finish_reason == "cancelled"
    assert text_of(list(random_engine.stream(chat("Bonjour"), FREE, never)))


def test_scores_are_the_logits_that_generation_uses(exact: Exact) -> None:
    ids = exact.tokenize(chat("Bonjour"))
    *_rest, last = exact.score(ids)
    assert last.dtype == np.float32 and last.shape == (exact.info.vocabulary,)
    first = next(
        e for e in exact.stream(chat("Bonjour"), Generation(temperature=0, max_tokens=1), never) if isinstance(e, Text)
    )
    assert exact._vocabulary.piece(int(last.argmax())).decode("utf-8", "replace") == first.delta


def test_scores_cross_batches(exact: Exact) -> None:
    ids = exact.tokenize(plain("mot " * 300))
    assert len(ids) > 512
    rows = list(exact.score(ids))
    assert len(rows) == len(ids)
    *_rest, alone = exact.score(ids[:520])
    assert np.abs(rows[519] - alone).max() < 1e-3


def test_min_tokens_holds_back_the_end(guide_engine: LlamaCppBackend) -> None:
    long = list(guide_engine.stream(chat("Bonjour"), dataclasses.replace(GREEDY, max_tokens=300), never))
    assert done_of(long).finish_reason == "stop"
    at_least = done_of(long).completion_tokens + 20
    forced = dataclasses.replace(GREEDY, max_tokens=300, min_tokens=at_least)
    assert done_of(list(guide_engine.stream(chat("Bonjour"), forced, never))).completion_tokens >= at_least


def test_repetition_penalty_changes_a_loop(random_engine: LlamaCppBackend) -> None:
    looping = dataclasses.replace(FREE, max_tokens=200)
    free = text_of(list(random_engine.stream(chat("a"), looping, never)))
    held = text_of(list(random_engine.stream(chat("a"), dataclasses.replace(looping, repetition_penalty=1.5), never)))
    assert len(set(held.split())) > len(set(free.split()))


def test_no_ngram_comes_twice(random_engine: LlamaCppBackend) -> None:
    ids = random_engine.tokenize(plain("a"))
    seen: list[int] = []
    sample = random_engine._vocabulary.piece
    random_engine._vocabulary.piece = lambda token: (seen.append(token), sample(token))[1]  # type: ignore[method-assign]
    wanted = dataclasses.replace(FREE, max_tokens=300, no_repeat_ngram_size=2)
    list(random_engine.stream(plain("a"), wanted, never))
    pairs = list(zip((ids + seen), (ids + seen)[1:], strict=False))
    assert len(pairs) == len(set(pairs))


def test_banned_strings_do_not_appear(guide_engine: LlamaCppBackend) -> None:
    whole = text_of(list(guide_engine.stream(chat("Bonjour"), GREEDY, never)))
    word = max(whole.split(), key=len).strip("!?.,")
    banned = dataclasses.replace(GREEDY, banned_strings=(word,))
    assert word in whole
    assert word not in text_of(list(guide_engine.stream(chat("Bonjour"), banned, never)))


def test_a_json_schema_gives_json(random_engine: LlamaCppBackend) -> None:
    schema = {
        "type": "object",
        "properties": {"ok": {"type": "boolean"}, "n": {"enum": [1, 2, 3]}},
        "required": ["ok", "n"],
    }
    wanted = Generation(temperature=1.0, seed=7, max_tokens=200, json_schema=json.dumps(schema))
    events = list(random_engine.stream(chat("Bonjour"), wanted, never))
    document = json.loads(text_of(events))
    assert isinstance(document["ok"], bool) and document["n"] in (1, 2, 3)
    assert done_of(events).finish_reason == "stop"


def test_a_grammar_is_obeyed_by_greedy_decoding(random_engine: LlamaCppBackend) -> None:
    wanted = Generation(temperature=0.0, max_tokens=20, grammar='root ::= "oui" | "non"')
    assert text_of(list(random_engine.stream(chat("Bonjour"), wanted, never))) in ("oui", "non")


def test_a_grammar_that_does_not_parse_is_a_usage_error(random_engine: LlamaCppBackend) -> None:
    with pytest.raises(UsageError):
        list(random_engine.stream(chat("a"), Generation(grammar='root ::= "a'), never))


def test_sampling_fields_at_temperature_zero_are_named(random_engine: LlamaCppBackend) -> None:
    events = list(random_engine.stream(chat("a"), dataclasses.replace(FREE, top_k=5, max_tokens=2), never))
    assert any(isinstance(event, Notice) and "top_k" in event.text for event in events)


def test_state_survives_in_a_file(random_model: ModelFiles, random_engine: LlamaCppBackend, tmp_path: Path) -> None:
    whole = text_of(list(random_engine.stream(chat("Bonjour"), FREE, never)))
    random_engine.save_state(tmp_path / "state")
    other = LlamaCppBackend()
    other.load(random_model, LoadOptions(), silent)
    tokens = other.load_state(tmp_path / "state")
    assert tokens > len(other.tokenize(chat("Bonjour")))
    again = list(other.stream(chat("Bonjour"), FREE, never))
    assert done_of(again).cached_tokens == done_of(again).prompt_tokens - 1
    assert text_of(again) == whole
    other.close()


@pytest.mark.parametrize("damage", ["truncated", "changed", "no sidecar", "missing"])
def test_a_damaged_state_is_not_loaded(random_engine: LlamaCppBackend, tmp_path: Path, damage: str) -> None:
    path = tmp_path / "state"
    list(random_engine.stream(chat("Bonjour"), FREE, never))
    random_engine.save_state(path)
    data = path.read_bytes()
    if damage == "truncated":
        path.write_bytes(data[: len(data) // 2])
    elif damage == "changed":
        path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    elif damage == "no sidecar":
        (tmp_path / "state.json").unlink()
    else:
        path.unlink()
    assert random_engine.load_state(path) == 0
    assert text_of(list(random_engine.stream(chat("Bonjour"), FREE, never)))


def test_the_sailor_speaks_when_the_adapter_is_on(guide_engine: LlamaCppBackend) -> None:
    marin = assets.path("vigogneau/marin.gguf")
    plain_answer = text_of(list(guide_engine.stream(chat("Bonjour"), GREEDY, never)))
    guide_engine.adapt([(marin, 1.0)])
    sailor = text_of(list(guide_engine.stream(chat("Bonjour"), GREEDY, never)))
    assert "Ohé" in sailor and "Ohé" not in plain_answer
    guide_engine.adapt([(marin, 0.0)])
    assert text_of(list(guide_engine.stream(chat("Bonjour"), GREEDY, never))) == plain_answer
    guide_engine.adapt([])
    assert text_of(list(guide_engine.stream(chat("Bonjour"), GREEDY, never))) == plain_answer


def test_an_adapter_switch_drops_the_cache_of_the_old_set(guide_engine: LlamaCppBackend) -> None:
    list(guide_engine.stream(chat("Bonjour"), GREEDY, never))
    guide_engine.adapt([(assets.path("vigogneau/marin.gguf"), 1.0)])
    assert done_of(list(guide_engine.stream(chat("Bonjour"), GREEDY, never))).cached_tokens == 0


def test_the_same_adapter_twice_adds_up(guide_engine: LlamaCppBackend) -> None:
    marin = assets.path("vigogneau/marin.gguf")
    guide_engine.adapt([(marin, 0.5), (marin, 0.5)])
    assert "Ohé" in text_of(list(guide_engine.stream(chat("Bonjour"), GREEDY, never)))


def test_an_adapter_of_another_base_is_refused(random_engine: LlamaCppBackend) -> None:
    with pytest.raises(FormatError):
        random_engine.adapt([(assets.path("vigogneau/marin.gguf"), 1.0)])


@pytest.mark.parametrize("content", [b"", b"GGUF", b"not a model at all" * 100])
def test_a_bad_file_is_a_sentence(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad.gguf"
    path.write_bytes(content)
    with pytest.raises(FormatError) as caught:
        LlamaCppBackend().load(ModelFiles("bad", "gguf", path), LoadOptions(), silent)
    assert str(path) in caught.value.message


def test_an_impossible_context_is_a_capacity_error(random_model: ModelFiles) -> None:
    with pytest.raises(CapacityError):
        LlamaCppBackend().load(random_model, LoadOptions(context=2**31 - 1), silent)


def test_scoring_an_unknown_id_is_refused(random_engine: LlamaCppBackend) -> None:
    with pytest.raises(BackendError):
        list(random_engine.score([1, 10**6]))


@pytest.mark.parametrize("context", [8, 31, 100, 300, 700])
def test_a_small_context_is_a_limit_and_no_crash(random_model: ModelFiles, context: int) -> None:
    engine = LlamaCppBackend()
    assert engine.load(random_model, LoadOptions(context=context), silent).context == context
    with pytest.raises(ContextError):
        list(engine.stream(plain("mot " * context), FREE, never))
    events = list(engine.stream(plain("a"), dataclasses.replace(FREE, max_tokens=10**6), never))
    assert done_of(events).prompt_tokens + done_of(events).completion_tokens <= context + 1
    engine.close()


def test_absurd_threads_are_bounded(random_model: ModelFiles) -> None:
    engine = LlamaCppBackend()
    assert engine.load(random_model, LoadOptions(threads=99_999), silent).threads == 512
    engine.close()


@pytest.mark.parametrize(
    "options",
    [LoadOptions(dtype="bf16"), LoadOptions(load_in="4bit"), LoadOptions(device="cuda"), LoadOptions(gpu_layers=3)],
)
def test_options_it_cannot_honour_are_refused(random_model: ModelFiles, options: LoadOptions) -> None:
    with pytest.raises(UsageError):
        LlamaCppBackend().load(random_model, options, silent)
