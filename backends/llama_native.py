"""The bindings of llama.cpp, loaded in silence and without the rest of llama-cpp-python."""

import ctypes
import importlib
import importlib.util
import os
import sys
import types
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from ..core.errors import BackendError
from ..core.i18n import _

WARNING, ERROR = 3, 4

messages: deque[str] = deque(maxlen=40)
"""The last warnings and errors of the library, for the sentence that explains a failure."""
_listeners: list[Callable[[int, str], None]] = []


def unavailable() -> str | None:
    """Say why llama.cpp cannot be used here, or None."""
    if "llama_cpp" not in sys.modules and importlib.util.find_spec("llama_cpp") is None:
        return _("llama-cpp-python is not installed: pip install llama-cpp-python")
    return None


def submodule(name: str) -> Any:
    """Import `llama_cpp.NAME` without the package's `__init__`.

    That one imports numpy, jinja2 and diskcache (150 ms) and installs a log callback that prints to stderr.
    """
    if "llama_cpp" not in sys.modules:
        spec = importlib.util.find_spec("llama_cpp")
        if spec is None or spec.submodule_search_locations is None:
            raise BackendError(unavailable() or "", _("Or choose another backend with `--backend`."))
        package = types.ModuleType("llama_cpp")
        package.__path__ = list(spec.submodule_search_locations)
        package.__spec__ = spec  # whoever asks whether the package is installed reads this
        sys.modules["llama_cpp"] = package
    return importlib.import_module(f"llama_cpp.{name}")


@cache
def bindings() -> Any:
    """Give the ctypes bindings of libllama, initialised once; logs go to `messages` and nowhere else."""
    os.environ["GGML_NO_BACKTRACE"] = "1"  # a failed assertion would start gdb and print on stdout
    os.environ.pop("LLAMA_CPP_LIB_PATH", None)  # replaces the library by one that we have not tested
    native = submodule("llama_cpp")
    native.llama_log_set(_log_callback(native), None)
    native.llama_backend_init()
    return native


@cache
def _log_callback(native: Any) -> Any:
    level = 0

    def keep(this_level: int, text: bytes, _data: object) -> None:
        nonlocal level
        level = this_level if this_level in (1, 2, WARNING, ERROR) else level  # 5 continues a message
        words = text.decode("utf-8", "replace") if level >= WARNING or _listeners else ""
        if level >= WARNING:
            messages.append(words.strip())
        for listener in _listeners:
            listener(level, words)

    return native.llama_log_callback(keep)


@contextmanager
def listening(listener: Callable[[int, str], None]) -> Iterator[None]:
    """Give `listener` the level and the text of all that the library logs; what it raises would be lost."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)


def reason(default: str) -> str:
    """Give the library's own first complaint since `messages` was cleared, or `default`, without a full stop."""
    return next((text for text in messages if text), default).rstrip(".")


class AbortFlag:
    """Makes llama.cpp stop computing, from any thread.

    The library asks a C function once per graph node; `strlen` of a two-byte buffer answers without Python.
    """

    def __init__(self, native: Any, context: Any) -> None:
        self._buffer = ctypes.create_string_buffer(2)
        strlen = ctypes.cast(ctypes.CDLL(None).strlen, ctypes.c_void_p).value
        self._callback = native.ggml_abort_callback(strlen)
        native.llama_set_abort_callback(context, self._callback, ctypes.addressof(self._buffer))

    def set(self) -> None:
        """Abort the computation in progress."""
        self._buffer[0] = b"\x01"

    def clear(self) -> None:
        """Let the next computation run."""
        self._buffer[0] = b"\x00"
