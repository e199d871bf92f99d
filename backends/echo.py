"""The test double, shipped with the package: an engine without weights that repeats or recites."""

import re
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar

from ..core.errors import ContextError
from ..core.progress import Progress
from .base import Backend, Done, Event, Generation, LoadOptions, ModelFiles, ModelInfo, Prefill, Prompt, Stop, Text
from .text import TextStream


class EchoBackend(Backend):
    """Recite `replies` in turn, or repeat the last user message. A token is a word with the space before it.

    `delay` is seconds a token; while `hold` is clear, the answer waits before its second token. `prompts` keeps
    every prompt it was given and `adapters` the active set.
    """

    name: ClassVar[str] = "echo"
    supports: ClassVar[frozenset[str]] = frozenset({"max_tokens", "stop", "seed", "adapters", "pieces"})

    def __init__(self, replies: Sequence[str] = (), delay: float = 0.0, context: int = 1024) -> None:
        self.info = None
        self.replies, self.delay, self.context = list(replies), delay, context
        self.hold = threading.Event()
        self.hold.set()
        self.prompts: list[Prompt] = []
        self.adapters: list[tuple[Path, float]] = []
        self._vocabulary: dict[tuple[str, bool], int] = {}
        self._cached: list[int] = []

    def load(self, model: ModelFiles, options: LoadOptions, progress: Progress) -> ModelInfo:
        progress("load", 1, 1)
        self.info = ModelInfo(
            backend=self.name,
            architecture="echo",
            context=options.context or self.context,
            trained_context=self.context,
            vocabulary=2**31,
            parameters=0,
            device="cpu",
            threads=1,
            bos="<s>",
            eos="</s>",
            specials=("</s>", "<s>"),
            ends=("</s>",),
        )
        return self.info

    def tokenize(self, prompt: Prompt) -> list[int]:
        words: list[tuple[str, bool]] = []
        for text, trusted in prompt.pieces:
            words += [(word, trusted) for word in re.findall(r"</?s>|\s+(?=</?s>)|\s*[^\s<]+|\s*<|\s+", text)]
        bos = [] if words[:1] == [("<s>", True)] else [self._id("<s>", True)]
        return bos + [self._id(*word) for word in words]

    def _id(self, word: str, trusted: bool) -> int:
        return self._vocabulary.setdefault((word, trusted), len(self._vocabulary))

    def pieces(self, tokens: Sequence[int]) -> list[str]:
        words = {number: word for (word, _trusted), number in self._vocabulary.items()}
        return [words[token] for token in tokens]

    def stream(self, prompt: Prompt, generation: Generation, stop: Stop) -> Iterator[Event]:
        self.prompts.append(prompt)
        ids = self.tokenize(prompt)
        cached = self._common(ids)
        if self.info and len(ids) >= self.info.context:
            raise ContextError(f"The prompt has {len(ids)} tokens; the context holds {self.info.context}.")
        yield from self.without_effect(generation)
        yield Prefill(len(ids), len(ids), cached)
        self._cached = ids
        yield from self._recite(self._reply(prompt), generation, stop, len(ids), cached)

    def _common(self, ids: list[int]) -> int:
        pairs = zip(self._cached, ids[:-1], strict=False)
        return next((i for i, (old, new) in enumerate(pairs) if old != new), min(len(self._cached), len(ids) - 1))

    def _reply(self, prompt: Prompt) -> str:
        if self.replies:
            return self.replies.pop(0)
        users = [message.content for message in prompt.messages if message.role == "user"]
        return users[-1] if users else prompt.text

    def _recite(
        self, reply: str, generation: Generation, stop: Stop, prompt_tokens: int, cached: int
    ) -> Iterator[Event]:
        began = time.perf_counter()
        out = TextStream(generation.stop or ())
        words = re.findall(r"\s*\S+|\s+$", reply)
        finish, count = "stop", 0
        for word in words:
            if stop():
                finish = "cancelled"
                break
            if generation.max_tokens is not None and count >= generation.max_tokens:
                finish = "length"
                break
            time.sleep(self.delay)
            count += 1
            if delta := out.feed(word.encode()):
                yield Text(delta, 1)
            if out.stopped:
                break
            while not self.hold.wait(0.01) and not stop():
                pass
        if rest := out.finish():
            yield Text(rest, 0)
        decode_s = time.perf_counter() - began
        yield Done(finish, prompt_tokens, cached, count, 0.0, decode_s, generation.seed or 0)

    def adapt(self, adapters: Sequence[tuple[Path, float]]) -> None:
        self.adapters = list(adapters)
