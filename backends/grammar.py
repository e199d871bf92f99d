"""Grammars for constrained answers: JSON schema to GBNF, and GBNF checked before it may kill the engine."""

import json
import re

from ..core.errors import UsageError
from ..core.i18n import _

MAX_LENGTH = 64 * 1024
MAX_NESTING = 200
MAX_REPETITIONS = 1000

# In a GBNF character class: everything JSON allows raw inside a string. llama.cpp's converter also lets control
# characters through, which json.loads then refuses.
_STRING_CHARACTER = r'char ::= [^"\\\x00-\x1F\x7F] | [\\] (["\\bfnrt/] | "u" [0-9a-fA-F]{4})'


def from_schema(schema: str) -> str:
    """Give the GBNF of a JSON schema. Raises UsageError for one that cannot be turned into a grammar.

    Number ranges (minimum, maximum) and string formats have no grammar: validate the finished JSON.
    """
    from .llama_native import submodule

    try:
        document = json.loads(schema)
        if not isinstance(document, dict):
            raise ValueError(_("it must be a JSON object"))
        text: str = submodule("llama_grammar").json_schema_to_gbnf(schema)
    except (AssertionError, AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
        raise UsageError(
            _("The JSON schema cannot be used: {reason}.").format(reason=error or type(error).__name__),
            _("Objects, arrays, enums, anyOf and local $ref are understood."),
        ) from error
    return check(re.sub(r"(?m)^char ::= .*$", lambda _match: _STRING_CHARACTER, text))


def check(grammar: str) -> str:
    """Give `grammar` back, or raise UsageError for one that makes llama.cpp loop, overflow or crash."""
    bare = re.sub(r'"(?:\\.|[^"\\])*"|\[(?:\\.|[^\]\\])*\]|#[^\n]*', " ", grammar)
    depth = deepest = 0
    for character in bare:
        depth += (character == "(") - (character == ")")
        deepest = max(deepest, depth)
    for low, comma, high in re.findall(r"\{\s*(\d*)\s*(,?)\s*(\d*)\s*\}", bare):
        least, most = int(low or 0), int(high or low or 0)
        if most > MAX_REPETITIONS or (comma and high and least > most):
            raise _refused(_("a repetition of {least} to {most}").format(least=least, most=most))
    if len(grammar) > MAX_LENGTH or deepest > MAX_NESTING:
        raise _refused(_("its size or nesting"))
    if not re.search(r"(?m)^\s*root\s*::=", grammar):
        raise _refused(_("no rule named root"))
    return grammar


def _refused(reason: str) -> UsageError:
    return UsageError(
        _("The grammar cannot be used because of {reason}.").format(reason=reason),
        _("See the GBNF guide of llama.cpp (grammars/README.md)."),
    )
