"""Where the prompt of a one-shot comes from: the flag, the arguments, stdin, or both."""

import os
import stat
import sys

from ...core.errors import UsageError
from ...core.i18n import _


def prompt(text: str | None, no_stdin: bool = False) -> str | None:
    """Give the prompt, or None where a person sits at a terminal and gave none.

    "-", or no text and no terminal, takes stdin; a file or pipe on stdin follows `text` after a blank line.
    Raises UsageError when nothing is there to ask, or stdin is not UTF-8.
    """
    if text is None and _terminal():
        return None
    parts = [] if text in (None, "-") else [text]
    wanted = text == "-" or (not no_stdin and _redirected(alone=text is None))
    if wanted:
        parts.append(_stdin())
    whole = "\n\n".join(part for part in parts if part.strip())
    if not whole:
        raise UsageError(_("There is no prompt."), _('Give one: `vigtui -p "…"`, or chat in a terminal.'))
    return whole


def _terminal() -> bool:
    return all(stream is not None and stream.isatty() for stream in (sys.stdin, sys.stdout))


def _redirected(alone: bool) -> bool:
    """Whether stdin is a file or a pipe (some programs make their pipes of sockets), or anything but a terminal
    when it is `alone`."""
    try:
        mode = os.fstat(0).st_mode
    except OSError:
        return False
    return (alone and not os.isatty(0)) or stat.S_ISFIFO(mode) or stat.S_ISREG(mode) or stat.S_ISSOCK(mode)


def _stdin() -> str:
    if sys.stdin is None:
        return ""
    try:
        return sys.stdin.buffer.read().decode("utf-8-sig").rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise UsageError(_("stdin is not UTF-8."), _("Convert it first, as with `iconv -t utf-8`.")) from error
