"""Every format renders byte for byte what the prompt functions of its authors render.

`golden.json` holds what they rendered, run with a tokenizer whose EOS is </s>: template/variant/number of messages;
keys "fastchat:…" use FastChat's names. Those of Jinja templates begin with BOS, which a prompt of ours never does.
"""

import json
from pathlib import Path

import pytest
from vigtui.backends.base import Message
from vigtui.chat import formats
from vigtui.chat.formats import System
from vigtui.chat.render import render

from .toy import LLAMA, TURNS, talk

GOLDEN: dict[str, str] = json.loads((Path(__file__).parent / "golden.json").read_text(encoding="utf-8"))
NAMES = {
    "fastchat:alpaca": "alpaca-fastchat",
    "fastchat:falcon": "falcon",
    "fastchat:falcon-chat": "falcon-chat",
    "fastchat:llama-2": "llama-2",
    "fastchat:mistral": "mistral",
    "fastchat:mpt-7b-chat": "mpt-chat",
    "fastchat:raw": "raw",
    "fastchat:vicuna_v1.1": "vicuna-v1.1",
    "fastchat:vigogne_chat_v2": "vigogne-chat-v2",
    "fastchat:vigogne_chat_v3": "vigogne-chat-v3-hf",
    "fastchat:vigogne_instruct": "vigogne-instruct-v4",
    "fastchat:zero_shot": "vicuna-v0-newline",
    "vicuna-v0/fschat-0.1.10": "vicuna-v0",
    "vicuna-v0/fschat-0.2.1": "vicuna-v0-space",
    "vicuna-v1.1/thebloke-newline": "vicuna-v1.1-newline",
    "vigogne-chat-v3/jinja": "vigogne-chat-v3-hf",
    "wizard-vicuna/readme-newline": "wizard-vicuna",
}
SYSTEMS = {
    "fastchat:llama-2/system/3": "Réponds en français.",
    "vigogne-chat-v2/aug-2023-system/1": "Vous êtes l'assistant IA nommé Vigogne, créé par Zaion Lab (https://zaion.ai)."
    " Vous suivez extrêmement bien les instructions. Aidez autant que vous le pouvez.",
}


def conversation(key: str) -> tuple[str, list[Message], str | None]:
    """Give the format, the messages and the input that the string under `key` was rendered from."""
    template, _slash, last = key.rpartition("/")
    if last in ("input", "noinput"):
        asks = {"cv-instruct": "Bonjour."}.get(template, "Donne un exemple.")
        if last == "noinput":
            return template, talk(asks), None
        return template, talk("Traduis :" if "Input" in GOLDEN[key] else "Traduis en anglais :"), "Le chat dort."
    name = NAMES.get(template) or NAMES.get(template.split("/")[0]) or template.split("/")[0]
    system = [Message("system", SYSTEMS[key])] if key in SYSTEMS else []
    return name, [*system, *talk(*TURNS[: int(last)])], None


@pytest.mark.parametrize("key", GOLDEN)
def test_as_upstream(key: str) -> None:
    id, messages, input = conversation(key)
    prompt = render(formats.get(id), messages, LLAMA, input=input)
    assert prompt.pieces == ((GOLDEN[key].removeprefix("<s>"), True),)


def test_eos_in_history_as_trained() -> None:
    told = render(formats.get("vigogne-chat-v1"), talk(*TURNS[:3]), LLAMA).text
    trained = render(formats.get("vigogne-chat-v1+eos"), talk(*TURNS[:3]), LLAMA).text
    assert told.endswith("\n<|ASSISTANT|>: Bonjour, tu vas bien ?\n<|USER|>: Non, ça ne va pas.\n<|ASSISTANT|>:")
    assert trained.endswith("\n<|ASSISTANT|>: Bonjour, tu vas bien ?</s>\n<|USER|>: Non, ça ne va pas.\n<|ASSISTANT|>:")
    assert render(formats.get("vigogne-chat-v2+no-eos"), talk(*TURNS[:3]), LLAMA).text.count("</s>") == 0


MORE = [
    ("vigogne-instruct-v2", "Traduis !? ", "x", None, "### Instruction:\nTraduis : x\n\n### Réponse:\n"),
    ("vigogne-instruct-v1", "Fais.", "", None, "### Instruction:\nFais.\n\n### Entrée:\n\n\n### Réponse:\n"),
    ("alpaca", "Fais.", "", None, "### Instruction:\nFais.\n\n### Response:\n"),
    ("alpaca-legacy", "Fais.", None, None, "### Instruction:\nFais.\n\n### Response:"),
    ("alpaca-short", "Fais.", "x", None, "### Instruction:\nFais.\n\n### Input:\nx\n\n### Response:\n"),
    (
        "vigogne-instruct-v4",
        "Fais.",
        None,
        System("empty"),
        "### System:\n\n\n### Instruction:\nFais.\n\n### Response:\n",
    ),
    ("vicuna-v1.1-newline", "a", None, System("none"), "USER: a\nASSISTANT:"),
    ("vicuna-v0", "a", None, System("none"), "###Human: a###Assistant:"),
    ("vigogne-chat-v3", "a", None, System("empty"), "[INST] a [/INST]"),
    ("mistral", "a", None, System("text", "s"), "[INST] s\na [/INST]"),
    ("falcon", "a\r\nb\n\nc", None, None, "User: a\nb\nc\n\nAssistant:"),
    ("falcon-chat", "a", None, System("text", "s"), "System: s\nUser: a\nFalcon:"),
    ("vigogne-chat-v1", "a", None, System("none"), "<|USER|>: a\n<|ASSISTANT|>:"),
    ("cv-cpp", "a", None, None, "request.\n\n### Instruction:\n\na### Response:\n\n"),
    ("cv-type0", "a", None, None, "wise and polite.\n\nUser:a\n\n### Assistant:"),
    ("cv-type1", "a", None, None, "called User.\n\n### Instruction:\n\nUser:a\nAssistant:\n\n### Response:"),
    ("chatml", "a", None, System("text", "s"), "<|im_start|>system\ns<|im_end|>\n<|im_start|>user\na<|im_end|>\n"),
]


@pytest.mark.parametrize(("id", "text", "input", "system", "end"), MORE)
def test_states_and_inputs(id: str, text: str, input: str | None, system: System | None, end: str) -> None:
    rendered = render(formats.get(id), talk(text), LLAMA, input=input, system=system).text
    assert rendered.removesuffix("<|im_start|>assistant\n").endswith(end)
    assert system is None or rendered.startswith(end)


HISTORIES = [
    ("cv-bot-user", "polite.\n\nUser:\na\n\nBot:b\n\n### User:\nc\n\n### Bot:"),
    ("cv-type0", "polite.\n\nUser:a\n\nAssistant:b\n\nUser:c\n\n### Assistant:"),
    ("cv-chat", "of user.\n\nUser:a\n\nAssistant:b\n\nUser:c\n\nAssistant:"),
    ("cv-cpp", "request.\n\n### Instruction:\n\na### Response:\n\nb### Instruction:\n\nc### Response:\n\n"),
    ("wizard-vicuna", "USER: a\nASSISTANT: b</s>\nUSER: c\nASSISTANT:"),
]


@pytest.mark.parametrize(("id", "end"), HISTORIES)
def test_histories(id: str, end: str) -> None:
    assert render(formats.get(id), talk("a", "b", "c"), LLAMA).text.endswith(end)
