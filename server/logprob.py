"""Logprobs in the two shapes of the OpenAI API: that of a chat and that of a completion."""

import codecs
from collections.abc import Iterable, Sequence
from typing import Any

from ..backends.base import Chosen
from ..backends.text import unspelled


def content(chosen: Iterable[Chosen], count: int) -> dict[str, Any]:
    """Give the shape of a chat, with at most `count` alternatives a token."""
    tokens = [
        _entry(one.token, one.logprob) | {"top_logprobs": [_entry(*other) for other in one.likely[:count]]}
        for one in chosen
    ]
    return {"content": tokens, "refusal": None}


def _entry(token: str, logprob: float) -> dict[str, Any]:
    return {"token": token, "logprob": logprob, "bytes": list(unspelled(token))}


class Columns:
    """The shape of a completion, part by part; it knows where in the text the next token begins, in characters."""

    def __init__(self) -> None:
        self._place = 0
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def take(self, chosen: Sequence[Chosen], count: int) -> dict[str, Any]:
        """Give the columns of the next tokens, with `count` alternatives and the token itself, or None for 0."""
        return {
            "text_offset": [self._after(one.token) for one in chosen],
            "token_logprobs": [one.logprob for one in chosen],
            "tokens": [one.token for one in chosen],
            "top_logprobs": [_table(one, count) for one in chosen] if count else None,
        }

    def _after(self, token: str) -> int:
        """Give where `token` begins; a later half of a character begins with the whole of it."""
        data, before = unspelled(token), self._place
        self._place += len(self._decoder.decode(data))
        own = len(codecs.utf_8_decode(data, "replace", False)[0])
        return max(before, self._place - own)  # a half that was waiting in vain has become U+FFFD before it


def _table(one: Chosen, count: int) -> dict[str, float]:
    table: dict[str, float] = {}
    for token, logprob in (*one.likely[:count], (one.token, one.logprob)):
        table.setdefault(token, logprob)  # two ids may have one text: the likelier stays
    return table
