"""Formats are data: files of ours and of the user, chosen for a model with a reason."""

from dataclasses import replace
from pathlib import Path

import pytest
from vigtui.backends.base import Message
from vigtui.chat import formats
from vigtui.chat.formats import System
from vigtui.chat.render import render
from vigtui.core import paths
from vigtui.core.errors import FormatError, NotFoundError

from .toy import CHATML, LLAMA, TURNS, talk

STATES = [
    ("vigogne-chat-v2", "<|system|>: \n<|user|>: u\n<|assistant|>:", "<|user|>: u\n<|assistant|>:"),
    ("vicuna-v1.1", "USER: u ASSISTANT:", "USER: u ASSISTANT:"),
    ("alpaca", "### Instruction:\nu\n\n### Response:\n", "### Instruction:\nu\n\n### Response:\n"),
    ("llama-2", "[INST] u [/INST]", "[INST] u [/INST]"),
    (
        "chatml",
        "<|im_start|>system\n<|im_end|>\n<|im_start|>user\nu<|im_end|>\n<|im_start|>assistant\n",
        "<|im_start|>user\nu<|im_end|>\n<|im_start|>assistant\n",
    ),
    ("raw", "u", "u"),
]


@pytest.mark.parametrize(("id", "empty", "none"), STATES)
def test_states_of_the_system_message(id: str, empty: str, none: str) -> None:
    form = formats.get(id)
    assert render(form, talk("u"), LLAMA, system=System("empty")).text == empty
    assert render(form, [Message("system", ""), *talk("u")], LLAMA).text == empty
    assert render(form, talk("u"), LLAMA, system=System("none")).text == none
    assert render(form, talk("u"), LLAMA, system=System("default")) == render(form, talk("u"), LLAMA)
    told = render(form, talk("u"), LLAMA, system=System("text", "Sois bref."))
    assert "Sois bref." in told.text
    assert told == render(form, [Message("system", "Sois bref."), *talk("u")], LLAMA)
    assert told.messages == (Message("system", "Sois bref."), Message("user", "u"))


@pytest.mark.parametrize("id", formats.ids())
def test_every_file_is_complete_and_its_example_true(id: str) -> None:
    form = formats.get(id)
    assert form.description and form.source and form.policy in formats.POLICIES
    system = System("text", "Réponds en français.") if "Réponds en français." in form.example else None
    conversations = [talk(*TURNS[:1]), talk(*TURNS[:3]), talk("Donne un exemple.")]
    assert form.example in [render(form, turns, LLAMA, system=system).text for turns in conversations]


def test_a_format_ends_its_answers() -> None:
    assert formats.stops(formats.get("vigogne-chat-v2"), None) == ("<|user|>", "<|assistant|>", "<|system|>")
    assert formats.stops(formats.get("llama-2"), ("FIN", "[INST]")) == ("FIN", "[INST]")
    assert formats.stops(formats.get("raw"), None) == ()


def test_what_is_done_to_an_answer() -> None:
    assert formats.postprocess(formats.get("cv-chat"), " a\ufffdb ") == "ab "
    assert formats.postprocess(formats.get("cv-chat"), " \ufffdb", begun=True) == " b"
    assert formats.postprocess(formats.get("raw"), " a\ufffd") == " a\ufffd"


def test_adding_a_format_is_adding_a_file() -> None:
    folder = paths.config() / "formats"
    folder.mkdir(parents=True)
    (folder / "mine.toml").write_text('template = "{{ messages[-1].content }} =>"\nstop = ["<="]')
    (folder / "raw.toml").write_text('template = "mine"')
    assert render(formats.get("mine"), talk("a"), LLAMA).text == "a =>"
    assert formats.get("raw").template == "mine"
    assert {"mine", "chatml"} <= set(formats.ids())


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("template = ", "Invalid value"),
        ('description = "x"', "“template” is missing"),
        ('template = 3\nid = "x"', "“template” has the wrong type"),
        ('template = ""\nstop = "x"', "“stop” has the wrong type"),
        ('template = ""\nstop = [1]', "“stop” has the wrong type"),
        ('template = ""\nstops = []', "unknown key “stops”"),
        ('template = ""\npolicy = "luck"', "“policy” must be one of rounds, "),
        ('template = ""\npost = ["rot13"]', "unknown post-processing rot13"),
        (b"\xff", "invalid start byte"),
    ],
)
def test_a_bad_file_is_named_and_the_others_work(text: str | bytes, reason: str) -> None:
    path = paths.config() / "formats" / "bad.toml"
    path.parent.mkdir(parents=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(FormatError) as error:
        formats.get("bad")
    assert str(path) in error.value.message and reason in error.value.message
    good, bad = formats.everything()
    assert "chatml" in [form.id for form in good] and [one.exit_code for one in bad] == [6]
    assert formats.choose(None, LLAMA)[0].id == "raw"


def test_an_unknown_format_names_the_nearest() -> None:
    with pytest.raises(NotFoundError) as error:
        formats.get("vigogne-chat-v22")
    assert "vigogne-chat-v2" in error.value.hint


def test_choice_and_its_reason() -> None:
    own = replace(CHATML, chat_template="{{ messages[0].content }}")
    assert formats.choose("alpaca", own, "llama-2")[0].id == "llama-2"
    assert formats.choose("alpaca", own)[0].id == "alpaca"
    assert formats.choose(None, own)[0] == formats.own(own)
    assert formats.choose("alpaca", own, "own")[0].own
    form, reason = formats.choose(None, CHATML)
    assert form.id == "chatml" and "<|im_start|>" in reason
    reasons = {formats.choose(*args)[1] for args in [(None, LLAMA), ("raw", LLAMA), (None, own), (None, own, "raw")]}
    assert len(reasons) == 4
    with pytest.raises(NotFoundError):
        formats.choose(None, LLAMA, "own")
    with pytest.raises(NotFoundError):
        formats.choose("no-such", LLAMA)


def test_a_guess_by_architecture() -> None:
    path: Path = paths.config() / "formats" / "birds.toml"
    path.parent.mkdir(parents=True)
    path.write_text('template = ""\nfor_architectures = ["falcon"]')
    form, reason = formats.choose(None, replace(LLAMA, architecture="falcon"))
    assert form.id == "birds" and "falcon" in reason
