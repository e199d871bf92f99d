"""What an answer came to: its text, counts and times, for people and for programs."""

from dataclasses import dataclass, field
from typing import Any

from ...backends.base import Done, Event, Notice, Prefill, Text
from ...chat.record import Stamp
from ...core.i18n import _


@dataclass
class Result:
    """Grows with the events of one answer; `stamp` comes from the conversation, at the end. `expected` are the tokens
    of the prompt as the engine counted them before it was answered."""

    parts: list[str] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)
    done: Done | None = None
    begun: bool = False
    expected: int = 0
    stamp: Stamp = field(default_factory=Stamp)

    def take(self, event: Event) -> None:
        """Add an event."""
        self.begun = True
        if isinstance(event, Text):
            self.parts.append(event.delta)
        elif isinstance(event, Notice):
            self.notices.append(event.text)
        elif isinstance(event, Prefill):
            self.expected = self.expected or event.total
        elif isinstance(event, Done):
            self.done = event

    @property
    def text(self) -> str:
        """All of the text so far."""
        return "".join(self.parts)

    @property
    def finish_reason(self) -> str:
        """stop, length, cancelled or error; error too while nothing has ended the answer."""
        return self.done.finish_reason if self.done else "error"

    def table(self, load_s: float) -> dict[str, Any]:
        """Give the answer as JSON values, but for the model and the conversation; times in seconds."""
        done = self.done or Done("error", self.stamp.prompt_tokens, 0, 0, 0.0, 0.0, 0)
        return {
            "text": self.text,
            "finish_reason": done.finish_reason,
            "seed": done.seed if self.done else None,
            "usage": {
                "prompt_tokens": done.prompt_tokens,
                "cached_tokens": done.cached_tokens,
                "completion_tokens": done.completion_tokens,
            },
            "timings": {
                "load_s": round(load_s, 4),
                "prefill_s": round(done.prefill_s, 4),
                "decode_s": round(done.decode_s, 4),
                "tokens_per_s": speed(done),
            },
            "truncated": [*self.stamp.dropped, *self.stamp.shortened],
            "notices": self.notices,
        }

    def estimated(self, server: bool) -> bool:
        """Whether the tokens of the prompt are an estimate: a `server` was to count them, and did not."""
        return server and self.done is not None and self.done.prompt_tokens == self.expected

    def statistics(self, load_s: float, server: bool = False) -> str:
        """Give counts and times on one line; `server` says that the engine is one."""
        if self.done is None:
            return _("The answer did not end, so there are no counts.")
        done = self.done
        return _(
            "{prompt} prompt tokens ({cached} from the cache) in {prefill:.2f} s · {tokens} tokens in {decode:.2f} s, "
            "{speed} tokens/s · loaded in {load:.2f} s · seed {seed} · {reason}"
        ).format(
            prompt=f"≈ {done.prompt_tokens}" if self.estimated(server) else done.prompt_tokens,
            cached=done.cached_tokens,
            prefill=done.prefill_s,
            tokens=done.completion_tokens,
            decode=done.decode_s,
            speed=speed(done),
            load=load_s,
            seed=done.seed,
            reason=done.finish_reason,
        )


def speed(done: Done) -> float | None:
    """Give the tokens generated a second, None where nothing was measured."""
    return round(done.completion_tokens / done.decode_s, 1) if done.decode_s and done.completion_tokens else None
