"""The command line: `main()` is the console script. Errors leave as one sentence and a documented exit code."""

import os
import signal
import sys
from collections.abc import Callable, Sequence

from ...core import __version__, i18n
from ...core.errors import VigtuiError
from ...core.i18n import _
from ...core.text import line


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command of the console and give its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    _prepare()
    try:
        return _ended(lambda: _run(given))
    except BrokenPipeError:
        return _quiet()


def commands() -> set[str]:
    """Give the names of all commands that exist or are announced."""
    from .table import ANNOUNCED, COMMANDS

    return {name.partition(" ")[0] for name in (*COMMANDS, *ANNOUNCED)}


def _run(arguments: list[str]) -> int:
    if arguments == ["--version"]:
        print(f"vigtui {__version__}")
        return 0
    i18n.use(_language(arguments))
    from .table import invoke

    return invoke(arguments)


def _language(arguments: list[str]) -> str | None:
    """Give the value of `--lang`, which is needed before the commands write their help, or None."""
    for i, argument in enumerate(arguments):
        if argument == "--":
            break
        name, equals, value = argument.partition("=")
        if name == "--lang":
            value = value if equals else "".join(arguments[i + 1 : i + 2])
            if value in i18n.LANGUAGES:
                os.environ["LANGUAGE"] = value  # the engine's process and click's own texts follow it
                return value
    return None


def _prepare() -> None:
    """Take the place of standard streams that are closed, and never fail on what an encoding lacks."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # else the database could become descriptor 1
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.reconfigure(errors="replace")  # pyright: ignore[reportAttributeAccessIssue]


def _ended(run: Callable[[], int]) -> int:
    """Give the exit code of `run`, whatever happens in it; a BrokenPipeError passes."""
    try:
        code = run()
        if sys.stdout is not None:
            sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except BrokenPipeError:
        raise
    except VigtuiError as error:
        return _failed(error.message, error.hint, error.exit_code)
    except OSError as error:
        return _failed(*_system(error))
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        return _failed(_("Unexpected error: {reason}.").format(reason=reason), _("VIGTUI_DEBUG=1 shows where."), 1)


def _system(error: OSError) -> tuple[str, str, int]:
    """Give the sentence, the hint and the exit code for what the operating system refused."""
    import errno

    place = f" ({error.filename})" if error.filename else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return _("The disk is full{place}.").format(place=place), _("Free some space and try again."), 4
    return _("The system says: {reason}{place}.").format(reason=error.strerror or error, place=place), "", 1


def _failed(message: str, hint: str, code: int) -> int:
    if os.environ.get("VIGTUI_DEBUG") == "1":
        import traceback

        traceback.print_exc()
    say(f"vigtui: {message} {hint}")
    return code


def say(text: str) -> None:
    """Write one safe line to stderr, as long as there is one."""
    try:
        print(line(text), file=sys.stderr, flush=True)
    except (OSError, ValueError):
        return


def _quiet() -> int:
    """End as the reader of stdout wished, without a second complaint when Python flushes at its exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return 0
