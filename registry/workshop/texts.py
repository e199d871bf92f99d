"""Texts of ours in French and English: some to calibrate a quantization with, others to measure it by."""

from itertools import chain, zip_longest
from pathlib import Path

from ... import assets
from ...core.errors import CapacityError, FormatError, UsageError
from ...core.i18n import _

LANGUAGES = ("fr", "en")
LIMIT = 64 << 20
"""Bytes of the longest text: more than any calibration reads."""


def calibration(name: str) -> list[str]:
    """Give the paragraphs of the text "fr", "en", "mixed" (one of each in turn) or of a UTF-8 text file.

    Raises UsageError for one that is not there or empty, FormatError for what is no text, CapacityError past 64 MiB.
    """
    if name == "mixed":
        pairs = zip_longest(*(calibration(language) for language in LANGUAGES))
        return [paragraph for paragraph in chain.from_iterable(pairs) if paragraph is not None]
    if name in LANGUAGES:
        return _paragraphs(_ours("calibration", name))
    path = Path(name)
    found = _paragraphs(_read(path))
    if not found:
        raise UsageError(_("{path} is empty.").format(path=path), _instead())
    return found


def evaluation() -> dict[str, str]:
    """Give language → a text that shares no sentence with the calibration."""
    return {language: _ours("evaluation", language) for language in LANGUAGES}


def _ours(use: str, language: str) -> str:
    return assets.path(f"{use}/{language}.txt").read_text(encoding="utf-8")


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            raw = file.read(LIMIT + 1)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UsageError(_("There is no file {path}.").format(path=path), _instead()) from error
    except (IsADirectoryError, ValueError) as error:  # ValueError: a zero byte in the path
        raise UsageError(_("{path} is no text file.").format(path=path), _instead()) from error
    except OSError as error:
        raise FormatError(
            _("{path} cannot be read: {reason}.").format(path=path, reason=error.strerror), _instead()
        ) from error
    if len(raw) > LIMIT:
        raise CapacityError(
            _("{path} has more than {size} MiB.").format(path=path, size=LIMIT >> 20), _("A few pages are enough.")
        )
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise FormatError(
            _("{path} is not UTF-8 text.").format(path=path), _("Save it as UTF-8, or choose another file.")
        ) from error


def _paragraphs(text: str) -> list[str]:
    """Split at blank lines; what holds none but spaces is dropped."""
    lines = "\n".join(line.rstrip() for line in text.splitlines())
    return [part.strip("\n") for part in lines.split("\n\n") if part.strip()]


def _instead() -> str:
    return _("Give fr, en, mixed or the path of a text file.")
