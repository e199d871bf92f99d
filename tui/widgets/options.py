"""A list of choices that takes a key even while it has no room."""

from contextlib import suppress
from typing import Literal

from textual.widgets import OptionList


class Options(OptionList):
    """Textual's list looks up lines that it has not measured yet when a page is turned in a tiny terminal."""

    def _move_page(self, direction: Literal[-1, 1]) -> None:
        with suppress(KeyError):
            super()._move_page(direction)
