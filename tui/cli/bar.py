"""A pull's progress: one line on stderr, for a terminal only."""

import shutil
import sys
from collections.abc import Sequence
from typing import Self

from ...core.i18n import _
from ...core.text import line
from ...registry.pull import Step
from .output import size


class Line:
    """One line on a terminal that changes in place; it is gone at the end."""

    def __init__(self) -> None:
        self.live = sys.stderr is not None and sys.stderr.isatty()
        self.shown = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._draw("")

    def draw(self, text: str) -> None:
        """Show as much of `text` as the terminal is wide."""
        if self.live:
            self._draw(text[: shutil.get_terminal_size().columns - 1])

    def _draw(self, text: str) -> None:
        if text != self.shown:
            sys.stderr.write("\r" + text.ljust(len(self.shown)) + ("" if text else "\r"))
            sys.stderr.flush()
            self.shown = text


class Bar(Line):
    """Draws the steps of the pull of `name`, whose files are `files`."""

    def __init__(self, name: str, files: Sequence[str]) -> None:
        super().__init__()
        self.name, self.files = name, list(files)

    def __call__(self, step: Step) -> None:
        if self.live:
            self.draw(self.text(step))

    def text(self, step: Step) -> str:
        """Give how far the pull is, on one line."""
        parts = [f"{self._file(step)} {percent(step.done, step.size)}"]
        if len(self.files) > 1:
            parts.append(_("in total {share}").format(share=percent(step.total_done, step.total)))
        parts.append(_("{done} of {total}").format(done=size(step.total_done), total=size(step.total)))
        if step.stage == "check":
            parts.append(_("checking what is here"))
        elif step.stage == "wait":
            parts.append(_("waiting for the server"))
        elif step.speed:
            parts.append(_("{speed}/s").format(speed=size(round(step.speed))))
            parts += [_("≈ {time} left").format(time=duration(step.left))] if step.left else []
        return line(" · ".join(parts))

    def _file(self, step: Step) -> str:
        name = step.file.rpartition("/")[2]
        number = self.files.index(step.file) + 1 if step.file in self.files else 0
        return f"{number}/{len(self.files)} {name}" if len(self.files) > 1 else name


def percent(done: int, whole: int) -> str:
    """Give a share in whole percent."""
    return f"{100 * done // whole} %" if whole else "–"


def duration(seconds: float) -> str:
    """Give a time that is still to pass, in the largest unit that people would use."""
    whole = round(seconds)
    if whole < 60:
        return _("{count} s").format(count=whole)
    if whole < 3600:
        return _("{minutes} min {seconds} s").format(minutes=whole // 60, seconds=whole % 60)
    return _("{hours} h {minutes} min").format(hours=whole // 3600, minutes=whole % 3600 // 60)
