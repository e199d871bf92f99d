"""From bytes of an engine to text on the screen: whole characters, and nothing of a stop string."""

import codecs
import re
from collections.abc import Iterable

_BYTES = re.compile(r"(?:<0x[0-9A-F]{2}>)+")


def spelled(data: bytes) -> str:
    """Give the text of `data`, or every byte as <0xNN> when it is no whole UTF-8."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return "".join(f"<0x{byte:02X}>" for byte in data)


def unspelled(text: str) -> bytes:
    """Give the bytes of what `spelled` gave."""
    if _BYTES.fullmatch(text):
        return bytes.fromhex(text.replace("<0x", "").replace(">", ""))
    return text.encode("utf-8", "replace")


class TextStream:
    """Turn pieces of bytes into text that may be shown.

    Incomplete UTF-8 is held back until it is whole; invalid bytes become U+FFFD. A suffix that may still become
    a stop string is held back too. The text ends before the stop string that is completed first (the longest,
    should several end at the same character), however the bytes were cut into pieces.
    """

    def __init__(self, stops: Iterable[str] = ()) -> None:
        self.stops = tuple(stop for stop in stops if stop)
        self.stopped = False
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = ""

    def feed(self, piece: bytes) -> str:
        """Give the text that `piece` settles; "" once a stop string was met."""
        return self._settle(self._decoder.decode(piece))

    def finish(self) -> str:
        """Give what was held back, when the answer ends without a stop string."""
        text = self._settle(self._decoder.decode(b"", final=True))
        text, self._held = text + ("" if self.stopped else self._held), ""
        return text

    def _settle(self, text: str) -> str:
        if self.stopped:
            return ""
        if not self.stops:
            return text
        text = self._held + text
        ends = [(start + len(stop), start) for stop in self.stops if (start := text.find(stop)) >= 0]
        if ends:
            self.stopped, self._held = True, ""
            return text[: min(ends)[1]]
        cut = len(text) - self._unsettled(text)
        self._held = text[cut:]
        return text[:cut]

    def _unsettled(self, text: str) -> int:
        """Length of the longest suffix of `text` that begins a stop string."""
        longest = 0
        for stop in self.stops:
            for length in range(min(len(stop) - 1, len(text)), longest, -1):
                if text.endswith(stop[:length]):
                    longest = length
                    break
        return longest
