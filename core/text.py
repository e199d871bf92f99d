"""Text from models, files and servers, made safe for a terminal."""

import re

# Escape sequences (ECMA-48): CSI, the strings OSC/DCS/SOS/PM/APC with their terminator, two-character ones. Then
# what is left of C0 and C1 but newline and tab, and the characters that reorder text (Unicode TR 36 §2.4).
_UNSAFE = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"
    r"|(?:\x1b[\]PX^_]|[\x90\x98\x9d\x9e\x9f])[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)"
    r"|\x1b[ -/]*[0-~]?"
    r"|[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]"
)
_UNFINISHED = re.compile(r"(?:\x1b(?:\[[0-?]*[ -/]*|[ -/]*)|\x9b[0-?]*[ -/]*|\r)\Z")


def safe(text: str) -> str:
    """Give `text` without escape sequences and control characters; newline and tab stay."""
    return _UNSAFE.sub("", text.replace("\r\n", "\n"))


def line(text: str) -> str:
    """Give `text` safe and on one line: for error messages, listings and titles."""
    return " ".join(safe(text).split())


class SafeStream:
    """Make a stream of pieces safe, where an escape sequence may be cut between two pieces."""

    def __init__(self) -> None:
        self._held = ""

    def feed(self, piece: str) -> str:
        """Give what is safe to show so far; the start of an unfinished sequence is held back."""
        text = self._held + piece
        tail = _UNFINISHED.search(text, max(0, len(text) - 64))
        self._held = tail.group() if tail else ""
        return safe(text[: tail.start()] if tail else text)
