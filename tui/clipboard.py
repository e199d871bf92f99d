"""The clipboard: through the terminal (OSC 52, over SSH too) and through the local desktop's own program."""

import os
import shutil
import subprocess
import threading
from contextlib import suppress

from textual.app import App

# A program, and the variable that must be set for it to reach a display.
_PROGRAMS = (
    (("pbcopy",), None),
    (("wl-copy",), "WAYLAND_DISPLAY"),
    (("xclip", "-selection", "clipboard"), "DISPLAY"),
    (("xsel", "--clipboard", "--input"), "DISPLAY"),
)


def copy(app: App, text: str) -> None:
    """Put `text` on the clipboard, both ways at once; neither blocks the screen."""
    app.copy_to_clipboard(text)
    if command := _command():
        threading.Thread(target=_run, args=(command, text), daemon=True).start()


def _command() -> tuple[str, ...] | None:
    for command, variable in _PROGRAMS:
        if shutil.which(command[0]) and (variable is None or os.environ.get(variable)):
            return command
    return None


def _run(command: tuple[str, ...], text: str) -> None:
    with suppress(OSError, subprocess.SubprocessError):
        subprocess.run(
            command,
            input=text.encode(errors="replace"),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=5,
            check=False,
        )
