"""Text to token ids and back with the tokenizer of a GGUF file."""

import ctypes
from typing import Any

from . import vocabulary

# Attributes of a token (enum llama_token_attr of llama.h).
_UNKNOWN, _CONTROL, _USER_DEFINED, _LSTRIP, _RSTRIP = 1, 8, 16, 128, 256


class Vocabulary(vocabulary.Vocabulary):
    """The tokenizer of a loaded model. `native` are the bindings, `model` its llama_model pointer."""

    def __init__(self, native: Any, model: Any) -> None:
        super().__init__()
        self._native = native
        self.pointer = native.llama_model_get_vocab(model)
        self.size: int = native.llama_vocab_n_tokens(self.pointer)
        self.bos: int = native.llama_vocab_bos(self.pointer)
        self.eos: int = native.llama_vocab_eos(self.pointer)
        self.adds_bos = bool(native.llama_vocab_get_add_bos(self.pointer)) and 0 <= self.bos < self.size
        self._buffer = ctypes.create_string_buffer(256)
        self._scan()

    def _scan(self) -> None:
        attribute, is_eog = self._native.llama_vocab_get_attr, self._native.llama_vocab_is_eog
        self.end_ids: set[int] = set()
        self._specials: dict[str, int] = {}
        self._strips: dict[int, tuple[bool, bool]] = {}
        unknown: set[int] = set()
        for token in range(self.size):
            attributes = attribute(self.pointer, token)
            if ends := is_eog(self.pointer, token):
                self.end_ids.add(token)
            if ends or attributes & (_UNKNOWN | _CONTROL | _USER_DEFINED):
                text = self._native.llama_vocab_get_text(self.pointer, token).decode("utf-8", "replace")
                # A run of spaces as one token (GPT-NeoX, MPT) is ordinary text, whoever typed it.
                if text.strip() or attributes & _CONTROL:
                    self._specials[text] = token
                    self._strips[token] = (bool(attributes & _LSTRIP), bool(attributes & _RSTRIP))
                    unknown |= {token} if attributes & _UNKNOWN else set()
        self._guarded = frozenset(self._strips) - unknown

    def text_of(self, token: int) -> str:
        if not 0 <= token < self.size:
            return ""
        return self._native.llama_vocab_get_text(self.pointer, token).decode("utf-8", "replace")

    def _piece(self, token: int) -> bytes:
        length = self._native.llama_token_to_piece(self.pointer, token, self._buffer, len(self._buffer), 0, False)
        if length < 0:
            self._buffer = ctypes.create_string_buffer(-length)
            return self._piece(token)
        return self._buffer.raw[:length]

    def encode(self, text: str, special: bool, inner: bool = False) -> list[int]:
        data = text.encode("utf-8", "replace")
        room = len(data) + 8
        ids = (self._native.llama_token * room)()
        count = self._native.llama_tokenize(self.pointer, data, len(data), ids, room, False, special)
        if count < 0:
            ids = (self._native.llama_token * -count)()
            count = self._native.llama_tokenize(self.pointer, data, len(data), ids, -count, False, special)
        return ids[:count]
