"""Prompt templates run in Jinja's immutable sandbox."""

import json
from datetime import datetime
from functools import lru_cache
from typing import Any

from ..core.errors import FormatError
from ..core.i18n import _
from ..core.text import line

LIMIT = 4 << 20
"""The longest prompt that a template may give, in bytes of UTF-8."""


class Failure(Exception):
    """Why a template does not render, without a full stop."""


def run(template: str, variables: dict[str, Any]) -> str:
    """Give what `template` renders from `variables`, in this process: for formats of ours and of the user.

    Raises FormatError in one sentence. A stranger's template goes through `foreign.run`.
    """
    try:
        return render(template, variables)
    except Failure as error:
        raise failure(str(error)) from error


def failure(reason: str) -> FormatError:
    """Give the error for a template that does not render."""
    return FormatError(
        _("The prompt template does not render: {reason}.").format(reason=reason[:300].rstrip(".")),
        _("Choose another prompt format with `--format`."),
    )


def render(template: str, variables: dict[str, Any]) -> str:
    """Give what `template` renders from `variables`. Raises Failure.

    Blocks, globals and filters are those that transformers gives (`chat_template_utils.py`): trim_blocks,
    lstrip_blocks, break and continue, `{% generation %}`, raise_exception, strftime_now, tojson with its arguments.
    """
    from jinja2 import TemplateError

    try:
        return _collect(_compiled(template).generate(**variables))
    except TemplateError as error:
        raise Failure(line(error.message or type(error).__name__)) from error
    except MemoryError as error:
        raise Failure(_("it needs too much memory")) from error
    # A template is a program: it can divide by zero, add a text to a number, call what cannot be called.
    except (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise Failure(line(str(error)) or type(error).__name__) from error


def warm() -> None:
    """Import and set up what the first template would wait for."""
    _compiled("")


def _collect(pieces: Any) -> str:
    parts, size = [], 0
    for piece in pieces:
        parts.append(piece)
        size += len(piece)
        if size > LIMIT:
            break
    text = "".join(parts)
    if 4 * size > LIMIT and len(text.encode("utf-8", "surrogatepass")) > LIMIT:
        raise Failure(_("its text is longer than {limit} bytes").format(limit=LIMIT))
    return text


@lru_cache(maxsize=32)
def _compiled(template: str) -> Any:
    return _environment().from_string(template)


@lru_cache(maxsize=1)
def _environment() -> Any:
    # jinja2 takes 30 ms to import: only what renders pays for it
    from jinja2 import TemplateError, nodes
    from jinja2.exceptions import SecurityError
    from jinja2.ext import Extension
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        """`{% generation %}` marks what the assistant wrote; for a prompt it is only its body."""

        tags = {"generation"}  # noqa: RUF012

        def parse(self, parser: Any) -> Any:
            number = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return nodes.Scope(body, lineno=number)

    class Sandbox(ImmutableSandboxedEnvironment):
        """Refuses the products and powers that would fill the memory before any text comes out."""

        intercepted_binops = frozenset({"*", "**"})

        def getattr(self, obj: Any, attribute: str) -> Any:
            """Find `message.role` at once, which jinja2 would look for as an attribute of dict first."""
            if type(obj) is dict and attribute in obj and attribute not in _OF_DICT:
                return obj[attribute]
            return super().getattr(obj, attribute)

        def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
            if operator == "**" and (abs(left) > 1 << 32 or abs(right) > 64):
                raise SecurityError("a power is too large")
            if operator == "*" and _product(left, right) > LIMIT:
                raise SecurityError("a text or list is repeated too often")
            return super().call_binop(context, operator, left, right)

    def raise_exception(message: str) -> None:
        raise TemplateError(message)

    environment = Sandbox(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, "jinja2.ext.loopcontrols"])
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = raise_exception
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    return environment


_OF_DICT = frozenset(dir(dict))


def _product(left: Any, right: Any) -> int:
    """Length of a repeated text or list; 0 for a product of numbers."""
    for items, times in ((left, right), (right, left)):
        if isinstance(items, str | list | tuple) and isinstance(times, int):
            return len(items) * times
    return 0


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
