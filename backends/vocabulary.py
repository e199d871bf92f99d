"""Text to token ids and back, where no user text becomes a control token: what every engine's tokenizer shares."""

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from functools import cached_property

from .base import Prompt
from .text import spelled


class Vocabulary(ABC):
    """A tokenizer with `size` ids; `end_ids` end an answer.

    `_specials` maps the text of each special token to its id, `_strips` an id to whether the token swallows the
    white space before and after it; `_guarded` are the ids that untrusted text must never give.
    """

    size: int
    bos: int
    eos: int
    adds_bos: bool
    end_ids: set[int]
    _specials: dict[str, int]
    _strips: dict[int, tuple[bool, bool]]
    _guarded: frozenset[int]

    def __init__(self) -> None:
        self._pieces: dict[int, bytes] = {}

    @abstractmethod
    def encode(self, text: str, special: bool, inner: bool = False) -> list[int]:
        """Give the ids of `text` without BOS; with `special`, texts of special tokens become those tokens.

        `inner` says that the text follows a special token rather than begins the prompt.
        """

    @abstractmethod
    def text_of(self, token: int) -> str:
        """Give the text of a special token, "" for an id outside the vocabulary."""

    @abstractmethod
    def _piece(self, token: int) -> bytes: ...

    @cached_property
    def specials(self) -> tuple[str, ...]:
        """Every text that the tokenizer reads as a special token, longest first."""
        return tuple(sorted(filter(None, self._specials), key=len, reverse=True))

    @cached_property
    def ends(self) -> tuple[str, ...]:
        """The texts of the tokens that end an answer."""
        return tuple(sorted(map(self.text_of, self.end_ids)))

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        return re.compile("(" + "|".join(map(re.escape, self.specials)) + ")" if self.specials else r"(?!)()")

    def piece(self, token: int) -> bytes:
        """Give the bytes that `token` adds to a text: none for a control token, maybe half a character."""
        known = self._pieces.get(token)
        if known is None:
            known = self._pieces[token] = self._piece(token)
        return known

    def shown(self, token: int) -> str:
        """Give the text of `token` for people: that of its piece, its name, or its bytes as <0xNN>."""
        data = self.piece(token)
        return spelled(data) if data and not self._named(token) else self.text_of(token)

    def _named(self, token: int) -> bool:
        return token in self._strips or token in self.end_ids

    def tokenize(self, prompt: Prompt) -> list[int]:
        """Give the ids of `prompt`, with BOS once where the model adds one.

        A prompt without untrusted pieces is encoded whole, as upstream does. Otherwise it is cut at its trusted
        special tokens; what lies between two of them is encoded together with special parsing off. On 13
        vocabularies this gave the same ids as the whole text, for user texts that spell no special token.
        """
        if all(trusted for _text, trusted in prompt.pieces):
            ids = self.encode(prompt.text, special=True)
        else:
            ids = self._encode_guarded(prompt.pieces)
        if self.adds_bos and ids[:1] != [self.bos]:
            ids.insert(0, self.bos)
        return ids

    def _encode_guarded(self, pieces: Iterable[tuple[str, bool]]) -> list[int]:
        ids: list[int] = []
        stretch: list[tuple[str, bool]] = []
        strip = inner = False
        for text, trusted in pieces:
            parts = self._pattern.split(text) if trusted else [text]
            for index, part in enumerate(parts):
                if index % 2 == 0:
                    stretch.append((part.lstrip() if strip and not stretch else part, trusted))
                    continue
                token = self._specials[part]
                before, after = self._strips.get(token, (False, False))
                ids += self._encode_stretch(stretch, before, inner)
                ids.append(token)
                stretch, strip, inner = [], after, True
        return ids + self._encode_stretch(stretch, False, inner)

    def _encode_stretch(self, stretch: list[tuple[str, bool]], strip: bool, inner: bool) -> list[int]:
        text = "".join(part for part, _trusted in stretch)
        text = text.rstrip() if strip else text
        if not text:
            return []
        ids = self.encode(text, special=False, inner=inner)
        if self._guarded.isdisjoint(ids):
            return ids
        # A user-defined token is recognised even with special parsing off: cut its text after the first
        # character, then, should a shorter special remain, after every one.
        for cut in (lambda part: (part[:1], part[1:]), tuple):
            ids = self._encode_cut(stretch, cut, inner)
            if self._guarded.isdisjoint(ids):
                break
        return [token for token in ids if token not in self._guarded]

    def _encode_cut(
        self, stretch: list[tuple[str, bool]], cut: Callable[[str], Iterable[str]], inner: bool
    ) -> list[int]:
        segments = [""]
        for part, trusted in stretch:
            first, *rest = (part,) if trusted else cut(part)
            segments[-1] += first
            segments += rest
        newline = self.encode("\n", special=False, inner=inner)
        ids = self.encode(segments[0], special=False, inner=inner)
        for segment in segments[1:]:
            # After a newline SentencePiece adds no space; the newline's own ids are taken off again.
            ids += self.encode("\n" + segment, special=False, inner=inner)[len(newline) :]
        return ids
