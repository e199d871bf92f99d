"""Strings that an answer must not hold, watched for in the text itself: the same text has many spellings in tokens."""

from collections.abc import Callable, Iterable


class Banned:
    """The strings `texts`; `piece` gives the bytes of a token. A `tail` is the end of an answer so far."""

    def __init__(self, texts: Iterable[str], piece: Callable[[int], bytes]) -> None:
        self._strings = tuple(text.encode("utf-8", "replace") for text in texts if text)
        self._piece = piece
        self._keep = max(map(len, self._strings), default=1) - 1

    def __bool__(self) -> bool:
        return bool(self._strings)

    def completes(self, tail: bytes, token: int) -> bool:
        """Whether the answer would hold a banned string after `token`."""
        text = tail + self._piece(token)
        return any(string in text for string in self._strings)

    def after(self, tail: bytes, token: int) -> bytes:
        """Give the tail after `token`, as long as it needs to be."""
        return (tail + self._piece(token))[-self._keep :] if self._keep else b""
