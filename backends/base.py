"""The contract of every backend: what goes in, what comes out, and what may be left out."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from ..core.errors import BackendError, ContextError, UsageError
from ..core.i18n import _
from ..core.progress import Progress

if TYPE_CHECKING:
    import numpy as np

FinishReason = Literal["stop", "length", "cancelled", "error"]

DEFAULT_CONTEXT = 4096
"""Tokens of context where nobody says how many, and the model was trained with no fewer."""
DEFAULT_ANSWER = 1024
"""Tokens of an answer where nobody says how many."""


@dataclass(frozen=True, slots=True)
class Generation:
    """How to generate. None means unset; names as in transformers and the OpenAI API.

    Order of sampling: penalties, temperature, top_k (0 = off), top_p, min_p, draw. Temperature 0 is greedy.
    `repetition_window` counts tokens, −1 the prompt and the answer. `logprobs` N > 0 asks for the natural logarithm of
    the probability that the model itself gave each token, before any penalty or choice of candidates, and for the N
    tokens that it held most likely there. Raises UsageError for values out of range.
    """

    max_tokens: int | None = None
    min_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    repetition_window: int | None = None
    no_repeat_ngram_size: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    num_beams: int | None = None
    seed: int | None = None
    stop: tuple[str, ...] | None = None
    stop_token_ids: tuple[int, ...] | None = None
    banned_strings: tuple[str, ...] | None = None
    json_schema: str | None = None
    grammar: str | None = None
    logprobs: int | None = None

    def __post_init__(self) -> None:
        for name, (low, high) in _RANGES.items():
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise UsageError(
                    _("{name} must lie between {low} and {high}, not {value}.").format(
                        name=name, low=low, high=high, value=value
                    )
                )

    def given(self) -> dict[str, object]:
        """Give the fields that are set, by name."""
        return {f.name: value for f in fields(self) if (value := getattr(self, f.name)) is not None}

    def over(self, below: "Generation") -> "Generation":
        """Give these values, filled up with those of `below` where unset."""
        return replace(below, **self.given())  # pyright: ignore[reportArgumentType]


_RANGES: dict[str, tuple[float, float]] = {
    "max_tokens": (1, 2**31),
    "min_tokens": (0, 2**31),
    "temperature": (0.0, 100.0),
    "top_p": (0.0, 1.0),
    "top_k": (0, 2**31 - 1),
    "min_p": (0.0, 1.0),
    "repetition_penalty": (0.01, 10.0),
    "repetition_window": (-1, 2**31 - 1),
    "no_repeat_ngram_size": (0, 1000),
    "presence_penalty": (-10.0, 10.0),
    "frequency_penalty": (-10.0, 10.0),
    "num_beams": (1, 64),
    "seed": (0, 2**32 - 2),
    "logprobs": (0, 20),
}

DEFAULTS = Generation(
    temperature=0.1,
    top_p=1.0,
    top_k=0,
    min_p=0.0,
    repetition_penalty=1.1,
    repetition_window=-1,
    no_repeat_ngram_size=0,
    presence_penalty=0.0,
    frequency_penalty=0.0,
    num_beams=1,
    min_tokens=0,
)
"""Vigogne's `infer()` (blog and demo_chat.py of bofenghuang/vigogne)."""


@dataclass(frozen=True, slots=True)
class Remote:
    """A model on a server: its base URL, the model's name there, and the variable that holds the key, if any."""

    url: str
    model: str
    key_env: str = ""


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """What a backend loads: `kind` as in a record ("gguf", "safetensors", "gptq", "remote") and where it lies; of a
    remote model `path` says nothing."""

    name: str
    kind: str
    path: Path
    remote: Remote | None = None


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """How to load. None or 0 lets the backend choose; `context` is in tokens."""

    context: int | None = None
    threads: int | None = None
    gpu_layers: int | None = None
    device: str | None = None
    dtype: str | None = None
    load_in: Literal["8bit", "4bit"] | None = None
    remote_code: bool = False


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What a loaded model is. Lengths in tokens, `parameters` a count, `specials` all texts of control tokens, `ends`
    those that end an answer."""

    backend: str
    architecture: str
    context: int
    trained_context: int
    vocabulary: int
    parameters: int
    device: str
    threads: int
    dtype: str = ""
    bos: str = ""
    eos: str = ""
    adds_bos: bool = True
    specials: tuple[str, ...] = ()
    ends: tuple[str, ...] = ()
    chat_template: str | None = None


@dataclass(frozen=True, slots=True)
class Message:
    """One turn: role "system", "user" or "assistant"."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Prompt:
    """A rendered prompt. An untrusted piece is text that the user typed and that spells a special token; it must
    not become one. Every special token in a trusted piece is meant. `messages` are for engines that render."""

    pieces: tuple[tuple[str, bool], ...]
    messages: tuple[Message, ...] = ()

    @property
    def text(self) -> str:
        """The whole prompt as text."""
        return "".join(text for text, _trusted in self.pieces)


@dataclass(frozen=True, slots=True)
class Prefill:
    """Tokens of the prompt read so far, all of them, and how many of them the cache held already."""

    done: int
    total: int
    cached: int


@dataclass(frozen=True, slots=True)
class Chosen:
    """A token of an answer: its text as `pieces` gives it, the natural logarithm of its probability, and the most
    `likely` tokens in its place, best first, with theirs; the token may be one of them."""

    token: str
    logprob: float
    likely: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Text:
    """A piece of the answer and the number of tokens generated since the last one; `chosen` are those tokens where
    their logprobs were asked for, without the one that ends an answer."""

    delta: str
    tokens: int
    chosen: tuple[Chosen, ...] | None = None

    @property
    def logprobs(self) -> tuple[float, ...] | None:
        """The natural logarithm of the probability of each token."""
        return tuple(one.logprob for one in self.chosen) if self.chosen else None


@dataclass(frozen=True, slots=True)
class Beams:
    """All live hypotheses of a beam search, best first: (text, sum of log-probabilities)."""

    candidates: tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True)
class Notice:
    """A sentence that the user should read, such as a field without effect."""

    text: str


@dataclass(frozen=True, slots=True)
class Done:
    """The end of an answer. Times in seconds, counts in tokens; `seed` is the one really used."""

    finish_reason: FinishReason
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    prefill_s: float
    decode_s: float
    seed: int


Event = Prefill | Text | Beams | Notice | Done
EVENTS: dict[str, type[Event]] = {kind.__name__.lower(): kind for kind in (Prefill, Text, Beams, Notice, Done)}
"""Name → class: the `type` of an event in JSON lines."""

Stop = Callable[[], bool]


@dataclass
class Backend(ABC):
    """An engine that turns a prompt into a stream of events. One file a backend; one call at a time."""

    name: ClassVar[str]
    supports: ClassVar[frozenset[str]] = frozenset()
    info: ModelInfo | None = field(default=None, init=False)

    @classmethod
    def unavailable(cls) -> str | None:
        """Say why it cannot run here and what to install, or None."""
        return None

    @abstractmethod
    def load(self, model: ModelFiles, options: LoadOptions, progress: Progress) -> ModelInfo:
        """Load `model`, calling `progress` as it comes. Raises BackendError, FormatError or CapacityError."""

    @abstractmethod
    def tokenize(self, prompt: Prompt) -> list[int]:
        """Give the token ids of `prompt`, BOS once where the model has one, no untrusted text as a control token."""

    @abstractmethod
    def stream(self, prompt: Prompt, generation: Generation, stop: Stop) -> Iterator[Event]:
        """Answer `prompt`: Prefill, Notice and Text events, then one Done.

        `stop` is polled at every token and during prefill. Raises ContextError when the prompt does not fit and
        BackendError when the engine fails; the text yielded before stays valid.
        """

    def adapt(self, adapters: Sequence[tuple[Path, float]]) -> None:
        """Replace the active set of adapters by these (file, scale); none switches them off."""
        if adapters:
            raise self._refusal("adapters")

    def save_state(self, path: Path) -> None:
        """Write the KV cache to `path`."""
        raise self._refusal("state")

    def load_state(self, path: Path) -> int:
        """Restore a KV cache written by `save_state`; give the number of tokens restored, 0 when it does not match."""
        raise self._refusal("state")

    def score(self, tokens: Sequence[int]) -> "Iterator[np.ndarray]":
        """Yield, for each token, float32 logits (n_vocab,) of the one after it. In-process engines only."""
        raise self._refusal("score")

    def pieces(self, tokens: Sequence[int]) -> list[str]:
        """Give the text of each token: what it adds to a text, the name of a special token, <0xNN> for every byte of
        half a character. Raises BackendError for an id outside the vocabulary."""
        raise self._refusal("pieces")

    def likelihood(self, tokens: Sequence[int], start: int) -> list[float]:
        """Give the natural logarithm of the probability of each of `tokens[start:]` after those before it; 1 ≤ start.

        Needs what `score` needs.
        """
        import numpy as np  # only for measurements

        found: list[float] = []
        for place, logits in enumerate(self.score(tokens), 1):
            if start <= place < len(tokens):
                top = logits.max()
                found.append(float(logits[tokens[place]] - top - np.log(np.exp(logits - top).sum())))
        return found

    def without_effect(self, wanted: Generation) -> Iterator[Notice]:
        """Yield a Notice for every field of `wanted` that this backend or mode cannot honour."""
        given = {name for name, value in wanted.given().items() if value != getattr(DEFAULTS, name)}
        for name in sorted(given - self.supports):
            yield Notice(_("{name} has no effect with {backend}.").format(name=name, backend=self.name))
        if wanted.temperature == 0:
            for name in sorted(given & self.supports & {"top_k", "top_p", "min_p", "seed"}):
                yield Notice(_("{name} has no effect at temperature 0.").format(name=name))

    def close(self) -> None:
        """Give back all memory. The backend cannot be used afterwards."""
        return

    def _room(self, prompt_tokens: int) -> int:
        """Tokens that the context leaves for the answer."""
        assert self.info is not None
        room = self.info.context - prompt_tokens
        if room < 1 or not prompt_tokens:
            raise ContextError(
                _("The prompt has {tokens} tokens; the context holds {context}.").format(
                    tokens=prompt_tokens, context=self.info.context
                ),
                _("Shorten it or load the model with a larger `--ctx`."),
            )
        return room

    def _refusal(self, ability: str) -> BackendError:
        return BackendError(
            _("The {backend} backend has no {ability}.").format(backend=self.name, ability=ability),
            _("`vigtui doctor` lists the backends."),
        )
