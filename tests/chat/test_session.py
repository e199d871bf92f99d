"""The conversation: a tree that grows and forgets nothing, answered by an engine, saved as it goes."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from vigtui.backends.base import (
    Backend,
    Done,
    Event,
    Generation,
    LoadOptions,
    Message,
    ModelFiles,
    Notice,
    Prompt,
    Stop,
    Text,
)
from vigtui.backends.echo import EchoBackend
from vigtui.backends.llama_cpp import LlamaCppBackend
from vigtui.chat.prepare import Source
from vigtui.chat.session import Session, title_of
from vigtui.chat.store import Store
from vigtui.core import paths
from vigtui.core.errors import BackendError, ContextError, NotFoundError, UsageError
from vigtui.core.progress import silent

from ..tiny import write_gguf
from .toy import echo

VIGOGNE = Source("vigogneau", "sha", "vigogne-chat-v2")


def contents(session: Session) -> list[str]:
    return [entry.content for entry in session.path()]


def ask(session: Session, engine: Backend, text: str, **options) -> list[Event]:
    session.say(text)
    return list(session.reply(engine, **options))


def notices(events: list[Event]) -> list[str]:
    return [event.text for event in events if isinstance(event, Notice)]


def test_a_chat_is_there_after_a_restart() -> None:
    session = Session.new(Store())
    events = ask(session, echo(" Bonjour à vous.", " Oui."), "Bonjour !", source=VIGOGNE)
    assert "".join(event.delta for event in events if isinstance(event, Text)) == "Bonjour à vous."
    assert isinstance(events[-1], Done)
    again = Session.last(Store())
    assert (again.id, again.title, again.conversation.model) == (session.id, "Bonjour !", "vigogneau")
    ask(again, echo("Oui."), "Vraiment ?", source=VIGOGNE)
    assert contents(Session.open(Store(), session.id[:4])) == ["Bonjour !", "Bonjour à vous.", "Vraiment ?", "Oui."]


def test_the_model_sees_the_whole_conversation() -> None:
    session, engine = Session.new(), echo("B", "D")
    ask(session, engine, "a", source=VIGOGNE)
    session.set_system("text", "Sois bref.")
    ask(session, engine, "c", source=VIGOGNE)
    assert engine.prompts[-1].text == (
        "<|system|>: Sois bref.\n<|user|>: a\n<|assistant|>: B</s>\n<|user|>: c\n<|assistant|>:"
    )
    session.set_system("none")
    session.set_format("llama-2")
    ask(session, engine, "e", source=VIGOGNE)
    assert engine.prompts[-1].text == "[INST] a [/INST] B </s><s>[INST] c [/INST] D </s><s>[INST] e [/INST]"


def test_an_answer_is_stamped() -> None:
    session, engine = Session.new(Store()), echo("un deux trois")
    source = replace(VIGOGNE, adapters=(("marin", 0.5),), generation=Generation(top_k=3, temperature=0.9))
    session.set_generation(Generation(temperature=0.7, top_p=0.5))
    ask(session, engine, "a", generation=Generation(top_p=0.8, max_tokens=2, seed=7), source=source)
    stamp = Session.last(Store()).path()[-1].stamp
    assert stamp is not None
    assert (stamp.model, stamp.sha256, stamp.backend, stamp.format) == ("vigogneau", "sha", "echo", "vigogne-chat-v2")
    assert (stamp.finish_reason, stamp.seed, stamp.completion_tokens, stamp.adapters) == (
        "length",
        7,
        2,
        (("marin", 0.5),),
    )
    values = {"temperature": 0.7, "top_p": 0.8, "top_k": 3, "repetition_penalty": 1.1, "max_tokens": 2}
    assert values.items() <= stamp.generation.items()
    assert stamp.generation["stop"] == ["<|user|>", "<|assistant|>", "<|system|>"]
    assert stamp.prompt_tokens == len(engine.tokenize(engine.prompts[-1])) and stamp.format_reason


def test_what_was_sent_can_be_looked_at() -> None:
    session, engine = Session.new(), echo("b")
    ask(session, engine, "a", source=VIGOGNE)
    sent = session.prepared
    assert sent is not None and sent.prompt == engine.prompts[-1] and sent.form.id == "vigogne-chat-v2"
    assert sent.tokens == len(engine.tokenize(sent.prompt)) < sent.limit == 768
    session.say("c")
    assert session.prepare(engine, source=VIGOGNE).tokens > sent.tokens


def test_stops_of_the_format_and_of_the_user() -> None:
    session = Session.new()
    engine = echo("un <|user|>: deux", "un deux FIN trois")
    ask(session, engine, "a", source=VIGOGNE)
    ask(session, engine, "b", source=VIGOGNE, generation=Generation(stop=("FIN",)))
    assert contents(session)[1::2] == ["un ", "un deux "]


class Recorder(EchoBackend):
    """An echo that can stop at ids, and remembers the values it was given."""

    supports = EchoBackend.supports | {"stop_token_ids"}
    given = Generation()

    def stream(self, prompt: Prompt, generation: Generation, stop: Stop) -> Iterator[Event]:
        self.given = generation
        return super().stream(prompt, generation, stop)


def test_a_stop_that_is_a_special_token_stops_by_its_id() -> None:
    engine = Recorder(["ok", "ok"])
    engine.info = echo().info
    session = Session.new(format="vicuna-v1.1")
    ask(session, engine, "a", generation=Generation(stop_token_ids=(5,)))
    assert engine.given.stop == ("</s>", "\nUSER:", " USER:")
    assert engine.given.stop_token_ids == (5, engine.tokenize(Prompt((("</s>", True),)))[-1])


def test_editing_and_regenerating_make_siblings() -> None:
    session, engine = Session.new(Store()), echo("1", "2", "3", "4")
    ask(session, engine, "a")
    first, answer = session.path()
    ask(session, engine, "b")
    session.edit(first.id, "A")
    list(session.reply(engine))
    assert contents(session) == ["A", "3"]
    session.regenerate()
    list(session.reply(engine))
    assert contents(session) == ["A", "4"]
    assert [entry.content for entry in session.siblings(first.id)] == ["a", "A"]
    assert [entry.content for entry in session.siblings(session.path()[-1].id)] == ["3", "4"]
    session.select(first.id)
    assert contents(session) == ["a", "1", "b", "2"]
    session.edit(answer.id, "un")
    assert contents(session) == ["a", "un"]
    again = Session.open(Store(), session.id)
    assert contents(again) == ["a", "un"] and len(again.entries()) == 8
    assert {entry.content for entry in again.entries()} == {"a", "1", "b", "2", "A", "3", "4", "un"}
    with pytest.raises(NotFoundError):
        again.select("nothing")


def test_regenerating_goes_back_to_the_last_question() -> None:
    session = Session.new()
    with pytest.raises(UsageError):
        session.regenerate()
    with pytest.raises(UsageError):
        list(session.reply(echo()))
    session.say("a")
    assert session.regenerate().content == "a"
    with pytest.raises(UsageError):
        ask(session, echo("b"), "c") and list(session.reply(echo()))


def test_a_cut_is_told_and_recorded() -> None:
    session, engine = Session.new(Store()), echo(context=120)
    told = [notices(ask(session, engine, f"{i} " + "mot " * 10)) for i in range(6)]
    assert told[0] == [] and "2 oldest messages" in told[-1][0].replace("4", "2").replace("6", "2").replace("8", "2")
    stamp = session.path()[-1].stamp
    assert stamp is not None and stamp.notices == tuple(told[-1])
    path = [entry.id for entry in session.path()]
    assert stamp.dropped and list(stamp.dropped) == path[: len(stamp.dropped)]
    assert len(session.path()) == 12 and len(engine.prompts[-1].messages) == 11 - len(stamp.dropped)


def test_pinned_messages_stay_in_the_prompt() -> None:
    session, engine = Session.new(Store()), echo(context=120)
    ask(session, engine, "retiens cela")
    session.pin(session.path()[0].id)
    for i in range(6):
        ask(session, engine, f"{i} " + "mot " * 10)
    assert engine.prompts[-1].text.startswith("retiens cela")
    assert Session.open(Store(), session.id).path()[0].pinned


def test_memory_caps_the_history() -> None:
    session, engine = Session.new(), echo()
    for text in "abc":
        ask(session, engine, text, max_memory=0, source=VIGOGNE)
        assert engine.prompts[-1].messages[1:] == (Message("user", text),)


def test_a_message_too_long_stays_as_a_branch() -> None:
    session, engine = Session.new(Store()), echo("ok", "ok", context=100)
    ask(session, engine, "court")
    with pytest.raises(ContextError) as error:
        ask(session, engine, "mot " * 200)
    assert error.value.exit_code == 8
    assert contents(session) == ["court", "ok"] and len(Session.open(Store(), session.id).entries()) == 3
    ask(session, engine, "bref")
    assert contents(session) == ["court", "ok", "bref", "ok"]


def test_a_stopped_answer_is_kept() -> None:
    session, engine = Session.new(Store()), echo("un deux trois")
    heard: list[Event] = []
    session.say("a")
    for event in session.reply(engine, stop=lambda: any(isinstance(e, Text) for e in heard)):
        heard.append(event)
    answer = Session.last(Store()).path()[-1]
    assert (answer.content, answer.state) == ("un", "partial")
    assert answer.stamp and answer.stamp.finish_reason == "cancelled"


def test_a_closed_generator_keeps_its_partial_answer() -> None:
    session = Session.new(Store())
    session.say("a")
    events = session.reply(echo("un deux trois"))
    assert isinstance(events, Iterator)
    while not isinstance(next(events), Text):
        pass
    events.close()  # pyright: ignore
    answer = Session.last(Store()).path()[-1]
    assert (answer.content, answer.state) == ("un", "partial")
    assert contents(session) == ["a", "un"]


def test_what_is_stopped_before_its_first_word_leaves_no_message() -> None:
    session = Session.new(Store())
    assert isinstance(ask(session, echo("un"), "a", stop=lambda: True)[-1], Done)
    assert contents(session) == contents(Session.last(Store())) == ["a"]


class Dying(EchoBackend):
    """An engine whose process dies after two words."""

    def stream(self, prompt: Prompt, generation: Generation, stop: Stop) -> Iterator[Event]:
        yield Text(" un", 1)
        yield Text(" deux", 1)
        raise BackendError("The engine died.", "Try again.")


def test_a_crash_keeps_the_answer_and_the_chat_goes_on() -> None:
    session, engine = Session.new(Store()), Dying()
    engine.info = echo().info
    with pytest.raises(BackendError):
        ask(session, engine, "a", source=VIGOGNE)
    answer = Session.last(Store()).path()[-1]
    assert (answer.content, answer.state) == ("un deux", "error")
    assert answer.stamp and answer.stamp.notices == ("The engine died.",)
    ask(session, echo("trois"), "b", source=VIGOGNE)
    assert contents(session) == ["a", "un deux", "b", "trois"]


class Narrow(EchoBackend):
    """An engine that finds only itself that the prompt does not fit."""

    def stream(self, prompt: Prompt, generation: Generation, stop: Stop) -> Iterator[Event]:
        raise ContextError("Too long.")
        yield


def test_an_engine_may_find_a_message_too_long() -> None:
    session, engine = Session.new(Store()), Narrow()
    engine.info = echo().info
    with pytest.raises(ContextError):
        ask(session, engine, "a")
    assert contents(session) == [] and [entry.content for entry in session.entries()] == ["a"]


class Dead(EchoBackend):
    """An engine that dies at once."""

    def stream(self, prompt: Prompt, generation: Generation, stop: Stop) -> Iterator[Event]:
        raise BackendError("The engine died.")
        yield


def test_a_crash_before_the_first_word() -> None:
    session, dead, engine = Session.new(Store()), Dead(), echo("ok", "encore")
    dead.info = engine.info
    with pytest.raises(BackendError):
        ask(session, dead, "a")
    assert [(entry.content, entry.state) for entry in session.path()] == [("a", "complete"), ("", "error")]
    ask(session, engine, "b")
    assert engine.prompts[-1].messages == (Message("user", "a\n\nb"),)
    session.select(session.siblings(session.path()[1].id)[0].id)
    session.regenerate()
    assert session.path()[-1].content == "b"


def test_an_unanswered_message_is_read_with_the_next() -> None:
    session, engine = Session.new(), echo("ok")
    ask(session, echo("x"), "a", stop=lambda: True)
    ask(session, engine, "b")
    assert engine.prompts[-1].messages == (Message("user", "a\n\nb"),)


def test_a_growing_answer_is_saved() -> None:
    session, engine = Session.new(Store()), echo("un deux trois")
    session.say("a")
    for event in session.reply(engine):
        if isinstance(event, Text):
            partial = Session.open(Store(), session.id).path()[-1]
            assert (partial.content, partial.state) == ("un", "partial")
            break
    else:
        pytest.fail("no text came")


def test_incognito_touches_no_disk() -> None:
    session = Session.new(None)
    ask(session, echo("b"), "a")
    session.set_persona("plain")
    session.regenerate()
    assert contents(session) == ["a"] and not paths.data().exists()


def test_nothing_is_stored_before_the_first_message() -> None:
    store = Store()
    session = Session.new(store, persona="plain", system=None, hidden=True)
    session.set_system("empty")
    assert store.list(hidden=True) == []
    with pytest.raises(NotFoundError):
        Session.last(store)
    session.say("a")
    assert store.list() == [] and Session.last(store).conversation.system.state == "empty"
    with pytest.raises(NotFoundError):
        Session.last(store, hidden=False)


def test_a_full_disk_does_not_stop_the_answer() -> None:
    store = Store()
    session = Session.new(store)
    ask(session, echo("b"), "a")
    store._sqlite().execute("PRAGMA query_only = ON")
    events = ask(session, echo("un deux"), "c")
    assert [event.delta for event in events if isinstance(event, Text)] == ["un", " deux"]
    assert "cannot be read or written" in "".join(notices(events)) and len(notices(events)) == 1
    assert isinstance(events[-1], Done)
    assert session.unsaved is not None and contents(session) == ["a", "b", "c", "un deux"]
    assert contents(Session.open(store, session.id)) == ["a", "b"]
    store._sqlite().execute("PRAGMA query_only = OFF")
    session.say("d")
    assert session.unsaved is None
    assert contents(Session.open(store, session.id)) == ["a", "b", "c", "un deux", "d"]


def test_with_a_real_model_the_second_turn_reads_only_what_is_new(tmp_path: Path) -> None:
    engine = LlamaCppBackend()
    engine.load(ModelFiles("tiny", "gguf", write_gguf(tmp_path / "tiny.gguf")), LoadOptions(), silent)
    session = Session.new(Store(), generation=Generation(max_tokens=8, temperature=0.0))
    first = ask(session, engine, "Bonjour </s> !", source=VIGOGNE)[-1]
    second = ask(session, engine, "Et puis ?", source=VIGOGNE)[-1]
    engine.close()
    assert isinstance(first, Done) and isinstance(second, Done)
    assert second.cached_tokens >= first.prompt_tokens - 1 > 0
    answer = Session.last(Store()).path()[-1]
    assert answer.state == "complete" and answer.stamp and answer.stamp.prompt_tokens == second.prompt_tokens


NO_SYSTEM = "{% for m in messages if m.role != 'system' %}[{{ m.role }}] {{ m.content }}{% endfor %}"


def test_a_template_without_system_is_told_once() -> None:
    session, engine = Session.new(), echo("b", "d", template=NO_SYSTEM)
    session.set_system("text", "Sois bref.")
    assert "no system message" in notices(ask(session, engine, "a"))[0]
    assert engine.prompts[-1].text == "[user] Sois bref.\n\na"
    assert notices(ask(session, engine, "c")) == []


def test_odd_text_is_stored_as_it_can_be() -> None:
    session = Session.new(Store())
    session.say("a\udcffb\0c")
    assert contents(Session.last(Store())) == ["a?b\0c"]


def test_no_model() -> None:
    with pytest.raises(BackendError):
        ask(Session.new(), EchoBackend(), "a")


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("Bonjour", "Bonjour"),
        (" deux\n\tlignes ", "deux lignes"),
        ("\x1b[31mrouge", "rouge"),
        ("x" * 80, "x" * 59 + "…"),
        ("mot " * 20, "mot " * 14 + "mot…"),
        ("un mot, " * 20, "un mot, " * 7 + "un…"),
    ],
)
def test_titles(text: str, title: str) -> None:
    assert title_of(text) == title and len(title) <= 60
