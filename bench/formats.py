"""Prompts: a history of 200 messages rendered and counted, 10,000 messages trimmed, and the peers on the same messages.

The peer is transformers' `apply_chat_template` on the template of the embedded model's Hugging Face folder; without
transformers it is jinja2 with the same template in the same sandbox. Ours includes the guard against control tokens.
"""

import json
import time
from collections.abc import Callable
from typing import Any

from vigtui import assets

from . import models
from .table import head, middle, row

TEXT = "le modèle répond dans la langue de la question et dit ce qu'il ne sait pas encore"
LIMIT = 4096


def conversation(count: int, size: int) -> list[Any]:
    """Give `count` messages of `size` words, of which the user has the first and the last."""
    from vigtui.backends.base import Message

    text = " ".join((TEXT.split() * size)[:size])
    roles = ("user", "assistant")
    return [Message(roles[i % 2], f"{text} {i}") for i in range(count - 1 + count % 2)]


def timed(run: Callable[[], Any]) -> float:
    """Give the milliseconds of the middle run of nine."""

    def once() -> float:
        began = time.perf_counter()
        run()
        return time.perf_counter() - began

    return middle(once, 9) * 1000


def main() -> None:
    """Print the table."""
    from vigtui.backends.base import LoadOptions, ModelFiles
    from vigtui.backends.llama_cpp import LlamaCppBackend
    from vigtui.chat import formats
    from vigtui.chat.render import render
    from vigtui.chat.window import fit

    engine = LlamaCppBackend()
    info = engine.load(ModelFiles("bench", "gguf", models.embedded()), LoadOptions(), lambda *_step: None)
    form, messages = formats.get("vigogne-chat-v2"), conversation(200, 16)
    prompt = render(form, messages, info)
    tokens = len(engine.tokenize(prompt))
    ours = timed(lambda: render(form, messages, info))
    both = timed(lambda: len(engine.tokenize(render(form, messages, info))))
    head("work", "size", "ms", "peer ÷ ours")
    row("render and count", f"{len(messages)} messages, {tokens} tokens", f"{both:.2f}", "")
    row("render", f"{len(messages)} messages", f"{ours:.2f}", "1.0")
    own = formats.own(info) if info.chat_template else None
    if own:
        row(
            "render the model's own template, in its child process",
            "",
            f"{timed(lambda: render(own, messages, info)):.2f}",
            "",
        )
    peer(messages, ours)
    for count in (1_000, 10_000, 20_000):
        long = conversation(count, 16)
        for id in ("vigogne-chat-v2", "vicuna-v1.1", "cv-chat"):
            policy = formats.get(id)
            ms = timed(lambda: fit(policy, long, info, lambda p: len(engine.tokenize(p)), LIMIT, LIMIT))  # noqa: B023
            row(f"trim, {policy.policy}", f"{len(long)} messages to {LIMIT} tokens", f"{ms:.1f}", "")
    engine.close()


def peer(messages: list[Any], ours: float) -> None:
    """Print the row of transformers, or of jinja2 where that is missing, and why."""
    folder = assets.path("vigogneau/hf")
    turns = [{"role": message.role, "content": message.content} for message in messages]
    try:
        from transformers import AutoTokenizer  # pyright: ignore[reportMissingImports]
    except ImportError:
        from vigtui.chat import template

        settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
        given = {"messages": turns, "add_generation_prompt": True, "bos_token": "<s>", "eos_token": "</s>"}
        theirs = timed(lambda: template.run(settings["chat_template"], given))
        name = "jinja2 on the same messages (transformers is not installed)"
    else:
        tokenizer = AutoTokenizer.from_pretrained(folder)
        theirs = timed(lambda: tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))
        name = "transformers' apply_chat_template"
    row(name, f"{len(messages)} messages", f"{theirs:.2f}", f"{theirs / ours:.1f}")


if __name__ == "__main__":
    main()
