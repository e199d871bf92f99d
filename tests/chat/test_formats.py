"""Formats render byte for byte what the reference implementations of their authors render."""

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

VIGOGNE = (
    "<|system|>: Vous êtes Vigogne, un assistant IA créé par Zaion Lab. Vous suivez extrêmement bien les instructions."
    " Aidez autant que vous le pouvez."
)
AUGUST = (
    "Vous êtes l'assistant IA nommé Vigogne, créé par Zaion Lab (https://zaion.ai). Vous suivez extrêmement bien"
    " les instructions. Aidez autant que vous le pouvez."
)
VICUNA = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed,"
    " and polite answers to the user's questions."
)
ALPACA = "Below is an instruction that describes a task. Write a response that appropriately completes the request."
ALPACA_INPUT = (
    "Below is an instruction that describes a task, paired with an input that provides further context."
    " Write a response that appropriately completes the request."
)

GOLDEN = [
    ("vigogne-chat-v2", 1, VIGOGNE + "\n<|user|>: Bonjour.\n<|assistant|>:"),
    (
        "vigogne-chat-v2",
        3,
        VIGOGNE + "\n<|user|>: Bonjour.\n<|assistant|>: Bonjour, tu vas bien ?</s>\n<|user|>: Non, ça ne va pas."
        "\n<|assistant|>:",
    ),
    ("vicuna-v1.1", 1, VICUNA + " USER: Bonjour. ASSISTANT:"),
    (
        "vicuna-v1.1",
        3,
        VICUNA + " USER: Bonjour. ASSISTANT: Bonjour, tu vas bien ?</s>USER: Non, ça ne va pas. ASSISTANT:",
    ),
    ("llama-2", 1, "[INST] Bonjour. [/INST]"),
    ("llama-2", 3, "[INST] Bonjour. [/INST] Bonjour, tu vas bien ? </s><s>[INST] Non, ça ne va pas. [/INST]"),
    ("raw", 1, "Bonjour."),
    ("raw", 3, "Bonjour.Bonjour, tu vas bien ?Non, ça ne va pas."),
    ("alpaca", 1, ALPACA + "\n\n### Instruction:\nBonjour.\n\n### Response:\n"),
    (
        "alpaca",
        3,
        ALPACA + "\n\n### Instruction:\nBonjour.\n\n### Response:\nBonjour, tu vas bien ?</s>"
        "\n\n### Instruction:\nNon, ça ne va pas.\n\n### Response:\n",
    ),
    ("chatml", 1, "<|im_start|>user\nBonjour.<|im_end|>\n<|im_start|>assistant\n"),
    (
        "chatml",
        3,
        "<|im_start|>user\nBonjour.<|im_end|>\n<|im_start|>assistant\nBonjour, tu vas bien ?<|im_end|>\n"
        "<|im_start|>user\nNon, ça ne va pas.<|im_end|>\n<|im_start|>assistant\n",
    ),
]


@pytest.mark.parametrize(("id", "count", "expected"), GOLDEN)
def test_golden(id: str, count: int, expected: str) -> None:
    prompt = render(formats.get(id), talk(*TURNS[:count]), LLAMA)
    assert prompt.pieces == ((expected, True),)


def test_golden_with_other_system_texts() -> None:
    vigogne = render(formats.get("vigogne-chat-v2"), [Message("system", AUGUST), *talk("Bonjour.")], LLAMA)
    assert vigogne.text == f"<|system|>: {AUGUST}\n<|user|>: Bonjour.\n<|assistant|>:"
    llama = render(formats.get("llama-2"), [Message("system", "Réponds en français."), *talk(*TURNS[:3])], LLAMA)
    assert llama.text == (
        "[INST] <<SYS>>\nRéponds en français.\n<</SYS>>\n\nBonjour. [/INST] Bonjour, tu vas bien ? </s>"
        "<s>[INST] Non, ça ne va pas. [/INST]"
    )


def test_golden_alpaca_with_input() -> None:
    prompt = render(formats.get("alpaca"), talk("Traduis :"), LLAMA, input="Le chat dort.")
    assert prompt.text == (
        ALPACA_INPUT + "\n\n### Instruction:\nTraduis :\n\n### Input:\nLe chat dort.\n\n### Response:\n"
    )


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
    assert form.description and form.source and form.policy == "rounds"
    system = System("text", "Réponds en français.") if "Réponds en français." in form.example else None
    conversations = [talk(*TURNS[:1]), talk(*TURNS[:3]), talk("Donne un exemple.")]
    assert form.example in [render(form, turns, LLAMA, system=system).text for turns in conversations]


def test_a_format_ends_its_answers() -> None:
    assert formats.stops(formats.get("vigogne-chat-v2"), None) == ("<|user|>", "<|assistant|>", "<|system|>")
    assert formats.stops(formats.get("llama-2"), ("FIN", "[INST]")) == ("FIN", "[INST]")
    assert formats.stops(formats.get("raw"), None) == ()


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
        formats.get("vigogne-chat-v3")
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
