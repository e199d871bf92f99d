"""Logprobs as servers of the OpenAI API tell them, of a chat or of a completion."""

from collections.abc import Iterable, Iterator
from itertools import islice, zip_longest
from typing import Any

from .base import Chosen
from .text import spelled
from .weigh import LEAST

Named = tuple[str, Any]
"""A token's text and what is said to be its logprob."""


def chosen(told: Any, count: int) -> list[Chosen]:
    """Give the tokens of a chunk whose `logprobs` are `told`, with at most `count` alternatives each.

    None at all where one of them has no logprob that can be one: what a server sends is not trusted.
    """
    content = getattr(told, "content", None)
    rows = map(_of_chat, content) if isinstance(content, list) else _of_completion(told)
    found = [_read(token, others, count) for token, *others in rows]
    known = [one for one in found if one]
    return known if len(known) == len(found) else []


def _read(token: Named, others: Iterable[Named], count: int) -> Chosen | None:
    if not _plausible(token):
        return None
    likely = sorted(map(_bounded, filter(_plausible, others)), key=lambda one: -one[1])
    return Chosen(*_bounded(token), tuple(likely[:count]))


def _plausible(one: Named) -> bool:
    return type(one[1]) in (int, float) and one[1] < 1.0  # NaN is not less


def _bounded(one: Named) -> tuple[str, float]:
    return one[0], float(max(LEAST, min(0.0, one[1])))


def _of_chat(one: Any) -> list[Named]:
    """Give a token of a chat and then its alternatives."""
    others = getattr(one, "top_logprobs", None)
    return [_named(each) for each in (one, *(others if isinstance(others, list) else ()))]


def _named(one: Any) -> Named:
    data, value = getattr(one, "bytes", None), getattr(one, "logprob", None)
    if isinstance(data, list) and data and all(type(byte) is int and 0 <= byte < 256 for byte in data):
        return spelled(bytes(data)), value
    return _clean(getattr(one, "token", "")), value


def _of_completion(told: Any) -> Iterator[list[Named]]:
    """Yield each token of a completion and then its alternatives."""
    found = [getattr(told, name, None) for name in ("token_logprobs", "tokens", "top_logprobs")]
    values, tokens, tables = (one if isinstance(one, list) else [] for one in found)
    for value, token, table in islice(zip_longest(values, tokens, tables), len(values)):
        others = table.items() if isinstance(table, dict) else ()
        yield [(_clean(token), value), *((_clean(text), each) for text, each in others)]


def _clean(token: Any) -> str:
    return token.encode("utf-8", "replace").decode() if isinstance(token, str) else ""
