"""A model's description, a tokenizer of words and a loaded echo: what the tests of this room share."""

import re
from dataclasses import replace

from vigtui.backends.base import LoadOptions, Message, ModelFiles, ModelInfo, Prompt
from vigtui.backends.echo import EchoBackend
from vigtui.core.progress import silent

LLAMA = ModelInfo(
    backend="toy",
    architecture="llama",
    context=2048,
    trained_context=2048,
    vocabulary=32000,
    parameters=1,
    device="cpu",
    threads=1,
    bos="<s>",
    eos="</s>",
    specials=("<unk>", "<s>", "</s>"),
)
CHATML = replace(LLAMA, specials=("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<s>", "</s>"))
TURNS = ["Bonjour.", "Bonjour, tu vas bien ?", "Non, ça ne va pas.", "Pourquoi ?", "J'ai perdu mes clés."]


def talk(*texts: str) -> list[Message]:
    """A conversation that the user begins."""
    return [Message("user" if i % 2 == 0 else "assistant", text) for i, text in enumerate(texts)]


def tokens(prompt: Prompt, info: ModelInfo = LLAMA) -> list[str]:
    """BOS, then special tokens (where trusted), words and single characters."""
    specials = "|".join(map(re.escape, sorted(info.specials, key=len, reverse=True)))
    out = [info.bos]
    for text, trusted in prompt.pieces:
        out += re.findall(rf"{specials}|\w+|\s+|." if trusted else r"\w+|\s+|.", text, re.S)
    return out


def controls(prompt: Prompt, info: ModelInfo) -> list[str]:
    """The special tokens that a tokenizer makes of the prompt."""
    pattern = re.compile("|".join(map(re.escape, sorted(info.specials, key=len, reverse=True))))
    return [token for text, trusted in prompt.pieces if trusted for token in pattern.findall(text)]


def echo(*replies: str, context: int = 1024, template: str | None = None) -> EchoBackend:
    """An echo engine, loaded."""
    engine = EchoBackend(replies, context=context)
    engine.load(ModelFiles("echo", "echo", __file__), LoadOptions(), silent)  # pyright: ignore
    engine.info = replace(engine.info, chat_template=template)
    return engine
