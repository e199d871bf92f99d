"""Models on any server that speaks the OpenAI API, behind the interface of the local engines."""

import re
import secrets
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, ClassVar

from ..core.errors import BackendError, NetworkError, NotFoundError, UsageError
from ..core.i18n import _
from ..core.progress import Progress
from . import connection
from .base import (
    DEFAULTS,
    Backend,
    Event,
    FinishReason,
    Generation,
    LoadOptions,
    ModelFiles,
    ModelInfo,
    Notice,
    Prefill,
    Prompt,
    Stop,
)
from .connection import Connection, Offer
from .dialect import MOST_OF_TEXT, PLAIN, Dialect, unheard
from .exchange import Answer
from .refusal import Busy, Rejected, Unreachable

ASSUMED_CONTEXT = 8192
"""Tokens of context where neither the server nor the person says how many."""
BYTES_A_TOKEN = 4
"""What a token is taken for before the server has counted: bytes of UTF-8, and as much again for each message."""


class RemoteBackend(Backend):
    """A server with an OpenAI-compatible API. It renders the messages itself; a prompt that has none is sent as text.

    `supports` is what some servers honour; the Dialect of the one at hand decides.
    `BACK_OFF` are the seconds before each new attempt when it is busy or away, as long as it has said nothing.
    """

    name: ClassVar[str] = "remote"
    supports: ClassVar[frozenset[str]] = frozenset(
        {
            "chat", "max_tokens", "temperature", "top_p", "stop", "seed", "presence_penalty", "frequency_penalty",
            "top_k", "min_p", "repetition_penalty", "repetition_window", "no_repeat_ngram_size", "min_tokens",
            "banned_strings", "json_schema", "grammar", "logprobs",
        }
    )  # fmt: skip
    BACK_OFF: ClassVar[tuple[float, ...]] = (0.5, 1.0, 2.0)

    def __init__(self) -> None:
        self.info = None
        self._server: Connection | None = None
        self._dialect: Dialect = PLAIN
        self._refused: set[str] = set()
        self._assumed = False

    @classmethod
    def unavailable(cls) -> str | None:
        return connection.unavailable()

    def load(self, model: ModelFiles, options: LoadOptions, progress: Progress) -> ModelInfo:
        if model.remote is None:
            raise UsageError(_("{name} is not on a server.").format(name=model.name))
        self._server = Connection(model.remote)
        try:
            offer = find(self._server.offers(), model.remote.model, model.remote.url)
            self._dialect = self._server.dialect(offer.owner)
            told = self._server.context(self._dialect) or offer.context
        except BaseException:
            self.close()
            raise
        progress("load", 1, 1)
        self._model, self._assumed = model.remote.model, not (told or options.context)
        self.info = self._describe(options.context or told or ASSUMED_CONTEXT, told)
        return self.info

    def _describe(self, context: int, told: int | None) -> ModelInfo:
        assert self._server is not None
        return ModelInfo(
            backend=self.name,
            architecture="remote",
            context=min(context, told or context),
            trained_context=told or context,
            vocabulary=2**31 - 1,
            parameters=0,
            device=f"{self._dialect.name}, {connection.host(self._server.remote.url)}",
            threads=0,
            adds_bos=False,
        )

    def tokenize(self, prompt: Prompt) -> list[int]:
        """Give as many ids as the prompt may have tokens (≈): the tokenizer is the server's, and so the ids are 0."""
        texts = [message.content for message in prompt.messages] or [prompt.text]
        count = sum(1 + len(text.encode("utf-8", "replace")) // BYTES_A_TOKEN for text in texts)
        return [0] * (count + BYTES_A_TOKEN * len(prompt.messages))

    def without_effect(self, wanted: Generation) -> Iterator[Notice]:
        for name in unheard(self._dialect, wanted):
            yield Notice(_("{name} has no effect with {backend}.").format(name=name, backend=self._dialect.name))

    def stream(self, prompt: Prompt, generation: Generation, stop: Stop) -> Iterator[Event]:
        seed = secrets.randbelow(2**31) if generation.seed is None else generation.seed
        yield from self.without_effect(generation)
        if self._assumed:
            self._assumed = False
            yield Notice(
                _("The server does not tell its context; ≈ {count} tokens are assumed (`--ctx`).").format(
                    count=ASSUMED_CONTEXT
                )
            )
        if not prompt.messages and (generation.logprobs or 0) > MOST_OF_TEXT:
            yield Notice(
                _("A server gives at most {count} alternatives a token where it continues a text.").format(
                    count=MOST_OF_TEXT
                )
            )
        whole = replace(generation.over(DEFAULTS), seed=seed)
        answer = Answer(seed, whole.stop or (), len(self.tokenize(prompt)), whole.logprobs or 0)
        yield Prefill(0, answer.prompt_tokens, 0)
        try:
            yield from self._attempts(prompt, whole, stop, answer)
        finally:
            answer.cancel()

    def _attempts(self, prompt: Prompt, generation: Generation, stop: Stop, answer: "Answer") -> Iterator[Event]:
        """Ask until the server answers: again after a while when it is busy, without a field that it refuses."""
        waits = list(self.BACK_OFF)
        while True:
            try:
                yield from self._attempt(prompt, generation, stop, answer)
                return
            except (Busy, Unreachable) as error:
                if answer.begun or not waits:
                    raise
                yield Notice(_("{reason} It is asked again.").format(reason=error.message))
                if _paused(waits.pop(0), stop):
                    yield answer.done("cancelled")
                    return
            except Rejected as error:
                field = None if answer.begun else self._refuse(error.said)
                if field is None:
                    raise
                yield Notice(
                    _("{name} has no effect: {server} refuses it.").format(name=field, server=self._dialect.name)
                )

    def _refuse(self, said: str) -> str | None:
        """Note the field that a refusal names and give it; None when it names none that was sent and can go."""
        field = next((name for name in self._sent if re.search(rf"(?<!\w){re.escape(name)}(?!\w)", said)), None)
        if field == "max_tokens" and self._dialect.limit == "max_tokens" and "max_completion_tokens" in said:
            self._dialect = replace(self._dialect, limit="max_completion_tokens")
        elif field:
            self._refused.add(field)
        return field

    def _body(self, prompt: Prompt, generation: Generation) -> dict[str, Any]:
        body = self._dialect.body(self._model, generation, chat=bool(prompt.messages))
        body = {name: value for name, value in body.items() if name not in self._refused}
        if "logprobs" in self._refused:
            body.pop("top_logprobs", None)
        self._sent = tuple(name for name in body if name not in ("model", "stream"))
        if prompt.messages:
            return body | {"messages": [{"role": one.role, "content": one.content} for one in prompt.messages]}
        return body | {"prompt": prompt.text}

    def _attempt(self, prompt: Prompt, generation: Generation, stop: Stop, answer: "Answer") -> Iterator[Event]:
        if self._server is None:
            raise BackendError(_("No model is loaded."))
        finish: FinishReason | None = None
        for chunk in answer.ask(self._server, self._body(prompt, generation), stop):
            yield from answer.take(chunk)
            if answer.out.stopped:
                finish = "stop"
                break
        else:
            finish = "cancelled" if stop() else answer.finish
        yield from answer.rest()
        if finish is None:
            raise NetworkError(
                _("{url} stopped in the middle of the answer.").format(url=self._server.remote.url),
                _("What came is kept; ask again for the rest."),
            )
        yield answer.done(finish)

    def close(self) -> None:
        server, self._server, self.info = self._server, None, None
        if server:
            server.close()


def find(offers: list[Offer], name: str, url: str) -> Offer:
    """Give the model `name` among those of a server. Raises NotFoundError with the list of those that it has."""
    for one in offers:
        if one.id == name:
            return one
    known = ", ".join(one.id for one in offers[:20]) or _("none")
    raise NotFoundError(
        _("{url} has no model {name}.").format(url=url, name=name), _("It has: {names}.").format(names=known)
    )


def offers(remote: connection.Remote) -> list[Offer]:
    """Give the models of a server. Raises UsageError, NetworkError or BackendError."""
    server = Connection(remote)
    try:
        return server.offers()
    finally:
        server.close()


def _paused(seconds: float, stop: Stop) -> bool:
    """Wait, and tell whether `stop` said so meanwhile."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if stop():
            return True
        time.sleep(0.02)
    return stop()
