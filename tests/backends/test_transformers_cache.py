import dataclasses
import threading
from pathlib import Path

import pytest
from vigtui.backends.base import Event, LoadOptions, Prefill
from vigtui.backends.transformers import TransformersBackend
from vigtui.core.errors import ContextError

from .contract import GREEDY, chat, done_of, never, plain, text_of
from .folders import FREE, byte_level, changed, loaded
from .folders import guide as guide
from .folders import hf as hf
from .folders import noise as noise


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
