"""Personas: files that choose the system message, show by example, and set values."""

import pytest
from vigtui.backends.base import Generation, Message
from vigtui.chat import persona
from vigtui.chat.prepare import Source
from vigtui.chat.session import Session
from vigtui.chat.store import Store
from vigtui.core import paths
from vigtui.core.errors import FormatError, NotFoundError

from .toy import echo

GUIDE = """
description = "un guide"
language = "fr"
greeting = "Salut !"
system = "Tu guides."
model = "vigogneau"
[generation]
temperature = 0.5
stop = ["FIN"]
[[examples]]
user = "Où ?"
assistant = "Là."
"""


def write(name: str, text: str) -> None:
    folder = paths.config() / "personas"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.toml").write_text(text)


def test_ours_are_complete() -> None:
    ours, bad = persona.everything()
    assert bad == [] and {"professeur", "cinq-ans", "editor", "plain"} <= {one.name for one in ours}
    assert all(one.description and one.system and one.greeting for one in ours)
    assert {one.language for one in ours} == {"fr", "en"}


def test_a_users_file() -> None:
    write("guide", GUIDE)
    write("plain", 'description = "mine"')
    guide = persona.get("guide")
    assert (guide.system, guide.greeting, guide.model, guide.language) == ("Tu guides.", "Salut !", "vigogneau", "fr")
    assert guide.examples == (Message("user", "Où ?"), Message("assistant", "Là."))
    assert guide.generation == Generation(temperature=0.5, stop=("FIN",))
    assert persona.get("plain").description == "mine" and persona.get("plain").system is None


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("system = ", "Invalid value"),
        ("system = 3", "“system” has the wrong type"),
        ("sistem = ''", "unknown key “sistem”"),
        ("examples = 3", "“examples” has the wrong type"),
        ("[[examples]]\nuser = 'a'", "an example has two texts"),
        ("[[examples]]\nuser = 'a'\nassistant = 1", "an example has two texts"),
        ("generation = 1", "“generation” has the wrong type"),
        ("[generation]\nheat = 1", "heat"),
        ("[generation]\ntemperature = 'hot'", "generation value"),
        ("[generation]\ntop_p = 3", "top_p must lie between"),
    ],
)
def test_a_bad_file_is_named_and_the_others_work(text: str, reason: str) -> None:
    write("bad", text)
    with pytest.raises(FormatError) as error:
        persona.get("bad")
    assert "bad.toml" in error.value.message and reason in error.value.message
    good, bad = persona.everything()
    assert len(good) >= 4 and len(bad) == 1


def test_an_unknown_persona_names_the_nearest() -> None:
    with pytest.raises(NotFoundError) as error:
        persona.get("proffesseur")
    assert "professeur" in error.value.hint
    with pytest.raises(NotFoundError):
        Session.new(persona="nobody")


def test_a_persona_speaks_before_the_history() -> None:
    write("guide", GUIDE)
    session, engine = Session.new(Store(), persona="guide"), echo("un FIN deux", "ok")
    session.say("a")
    list(
        session.reply(engine, source=Source(format="vigogne-chat-v2", generation=Generation(temperature=0.9, top_k=5)))
    )
    assert engine.prompts[-1].text == (
        "<|system|>: Tu guides.\n<|user|>: Où ?\n<|assistant|>: Là.</s>\n<|user|>: a\n<|assistant|>:"
    )
    answer = Session.last(Store()).path()[-1]
    assert answer.content == "un " and answer.stamp
    assert answer.stamp.generation["temperature"] == 0.5 and answer.stamp.generation["top_k"] == 5
    session.set_system("text", "Autre.")
    session.say("b")
    list(session.reply(engine, source=Source(format="vigogne-chat-v2")))
    assert engine.prompts[-1].text.startswith("<|system|>: Autre.\n<|user|>: Où ?")


def test_examples_outlast_old_rounds_but_not_the_last_message() -> None:
    write("guide", GUIDE)
    session, engine = Session.new(persona="guide"), echo(context=100)
    for i in range(4):
        session.say(f"{i} " + "mot " * 12)
        list(session.reply(engine))
    assert engine.prompts[-1].messages[1] == Message("user", "Où ?") and len(engine.prompts[-1].messages) < 10
    session.say("mot " * 70)
    events = list(session.reply(engine))
    assert "examples" in str(events[0]) and engine.prompts[-1].messages[1].content.startswith("mot mot")


def test_a_persona_that_is_gone_is_told() -> None:
    write("guide", GUIDE)
    session = Session.new(Store(), persona="guide")
    session.say("a")
    (paths.config() / "personas" / "guide.toml").unlink()
    again = Session.last(Store())
    assert again.persona is None and again.conversation.persona == "guide"
    assert "guide" in str(next(iter(again.reply(echo("b")))))
