"""Text to token ids and back with the tokenizer of a GGUF file, where no user text becomes a control token."""

import ctypes
import re
from functools import cached_property
from typing import Any

from .base import Prompt

# Attributes of a token (enum llama_token_attr of llama.h).
_UNKNOWN, _CONTROL, _USER_DEFINED, _LSTRIP, _RSTRIP = 1, 8, 16, 128, 256


class Vocabulary:
    """The tokenizer of a loaded model. `native` are the bindings, `model` its llama_model pointer."""

    def __init__(self, native: Any, model: Any) -> None:
        self._native = native
        self.pointer = native.llama_model_get_vocab(model)
        self.size: int = native.llama_vocab_n_tokens(self.pointer)
        self.bos: int = native.llama_vocab_bos(self.pointer)
        self.eos: int = native.llama_vocab_eos(self.pointer)
        self.adds_bos = bool(native.llama_vocab_get_add_bos(self.pointer)) and 0 <= self.bos < self.size
        self._pieces: dict[int, bytes] = {}
        self._buffer = ctypes.create_string_buffer(256)
        self._scan()

    def _scan(self) -> None:
        attribute, is_eog = self._native.llama_vocab_get_attr, self._native.llama_vocab_is_eog
        self.end_ids: set[int] = set()
        self._specials: dict[str, int] = {}
        self._attributes: dict[int, int] = {}
        for token in range(self.size):
            attributes = attribute(self.pointer, token)
            if ends := is_eog(self.pointer, token):
                self.end_ids.add(token)
            if ends or attributes & (_UNKNOWN | _CONTROL | _USER_DEFINED):
                text = self._native.llama_vocab_get_text(self.pointer, token).decode("utf-8", "replace")
                # A run of spaces as one token (GPT-NeoX, MPT) is ordinary text, whoever typed it.
                if text.strip() or attributes & _CONTROL:
                    self._specials[text] = token
                    self._attributes[token] = attributes

    @cached_property
    def specials(self) -> tuple[str, ...]:
        """Every text that the tokenizer reads as a special token, longest first."""
        return tuple(sorted(filter(None, self._specials), key=len, reverse=True))

    @cached_property
    def ends(self) -> tuple[str, ...]:
        """The texts of the tokens that end an answer."""
        return tuple(sorted(map(self.text_of, self.end_ids)))

    @cached_property
    def _guarded(self) -> frozenset[int]:
        unknown = (i for i, attributes in self._attributes.items() if attributes & _UNKNOWN)
        return frozenset(self._attributes) - frozenset(unknown)

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        return re.compile("(" + "|".join(map(re.escape, self.specials)) + ")" if self.specials else r"(?!)()")

    def text_of(self, token: int) -> str:
        """Give the text of a special token, "" for an id outside the vocabulary."""
        if not 0 <= token < self.size:
            return ""
        return self._native.llama_vocab_get_text(self.pointer, token).decode("utf-8", "replace")

    def piece(self, token: int) -> bytes:
        """Give the bytes that `token` adds to a text: none for a control token, maybe half a character."""
        known = self._pieces.get(token)
        if known is None:
            known = self._pieces[token] = self._piece(token)
        return known

    def _piece(self, token: int) -> bytes:
        length = self._native.llama_token_to_piece(self.pointer, token, self._buffer, len(self._buffer), 0, False)
        if length < 0:
            self._buffer = ctypes.create_string_buffer(-length)
            return self._piece(token)
        return self._buffer.raw[:length]

    def shown(self, token: int) -> str:
        """Give the text of `token` for people: that of its piece, its name, or its bytes as <0xNN>."""
        data = self.piece(token)
        try:
            return data.decode("utf-8") if data and not self._named(token) else self.text_of(token)
        except UnicodeDecodeError:
            return "".join(f"<0x{byte:02X}>" for byte in data)

    def _named(self, token: int) -> bool:
        return token in self._attributes or token in self.end_ids

    def encode(self, text: str, special: bool) -> list[int]:
        """Give the ids of `text` without BOS; with `special`, texts of special tokens become those tokens."""
        data = text.encode("utf-8", "replace")
        room = len(data) + 8
        ids = (self._native.llama_token * room)()
        count = self._native.llama_tokenize(self.pointer, data, len(data), ids, room, False, special)
        if count < 0:
            ids = (self._native.llama_token * -count)()
            count = self._native.llama_tokenize(self.pointer, data, len(data), ids, -count, False, special)
        return ids[:count]

    def tokenize(self, prompt: Prompt) -> list[int]:
        """Give the ids of `prompt`, with BOS once where the model adds one.

        A prompt without untrusted pieces is encoded whole, as upstream does. Otherwise it is cut at its trusted
        special tokens; what lies between two of them is encoded together with special parsing off. On 13
        vocabularies this gave the same ids as the whole text, for user texts that spell no special token.
        """
        if all(trusted for _text, trusted in prompt.pieces):
            ids = self.encode(prompt.text, special=True)
        else:
            ids = self._encode_guarded(prompt)
        if self.adds_bos and ids[:1] != [self.bos]:
            ids.insert(0, self.bos)
        return ids

    def _encode_guarded(self, prompt: Prompt) -> list[int]:
        ids: list[int] = []
        stretch: list[tuple[str, bool]] = []
        strip = False
        for text, trusted in prompt.pieces:
            parts = self._pattern.split(text) if trusted else [text]
            for index, part in enumerate(parts):
                if index % 2 == 0:
                    stretch.append((part.lstrip() if strip and not stretch else part, trusted))
                    continue
                token = self._specials[part]
                attributes = self._attributes[token]
                ids += self._encode_stretch(stretch, bool(attributes & _LSTRIP))
                ids.append(token)
                stretch, strip = [], bool(attributes & _RSTRIP)
        return ids + self._encode_stretch(stretch, False)

    def _encode_stretch(self, stretch: list[tuple[str, bool]], strip: bool) -> list[int]:
        text = "".join(part for part, _trusted in stretch)
        text = text.rstrip() if strip else text
        if not text:
            return []
        ids = self.encode(text, special=False)
        if self._guarded.isdisjoint(ids):
            return ids
        # A user-defined token is recognised even with special parsing off: cut its text after the first
        # character, then, should a shorter special remain, after every one.
        for cut in (lambda part: (part[:1], part[1:]), tuple):
            ids = self._encode_cut(stretch, cut)
            if self._guarded.isdisjoint(ids):
                break
        return [token for token in ids if token not in self._guarded]

    def _encode_cut(self, stretch: list[tuple[str, bool]], cut: Any) -> list[int]:
        segments = [""]
        for part, trusted in stretch:
            first, *rest = (part,) if trusted else cut(part)
            segments[-1] += first
            segments += rest
        newline = self.encode("\n", special=False)
        ids = self.encode(segments[0], special=False)
        for segment in segments[1:]:
            # After a newline SentencePiece adds no space; the newline's own ids are taken off again.
            ids += self.encode("\n" + segment, special=False)[len(newline) :]
        return ids
