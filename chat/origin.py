"""Which part of a rendered prompt comes from which message."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from .formats import System
from .render import Draft, draft


@dataclass(frozen=True, slots=True)
class Span:
    """Characters `start` to `end` of a draft's text; `message` is the position in its messages."""

    start: int
    end: int
    message: int


def trace(made: Draft, input: str | None = None) -> tuple[Span, ...]:
    """Give, in their order, the parts of `made.text` that come from its messages (which include the system text).

    The same conversation is rendered once more with a single character in the place of each content; what stands
    between those characters is the template's, whatever the contents hold. Gives nothing for a template that
    writes something else for other contents.
    """
    marks = [made.guard.mark() for _message in made.messages]
    marked = [replace(message, content=mark) for message, mark in zip(made.messages, marks, strict=True)]
    state = System("none") if not marked or marked[0].role != "system" else None
    frame = draft(made.form, marked, made.info, system=state, input=input)
    used = [mark for mark in marks if frame.text.count(mark) == 1]
    order = sorted(used, key=frame.text.index)
    ends = [-1, *map(frame.text.index, order), len(frame.text)]
    literals = [frame.text[a + 1 : b] for a, b in pairwise(ends)]
    contents = [made.guard.hide(made.messages[marks.index(mark)].content) for mark in order]
    found = _match(literals, contents, made.text)
    return tuple(Span(found.start(n + 1), found.end(n + 1), marks.index(mark)) for n, mark in enumerate(order) if found)


def _match(literals: Sequence[str], contents: Sequence[str], text: str) -> re.Match[str] | None:
    """Find the contents between the literals: as they are, without the blanks around them, or else any text."""
    for choose in (_spellings, lambda _content: ".*?"):
        pattern = re.escape(literals[0])
        for content, literal in zip(contents, literals[1:], strict=True):
            pattern += f"({choose(content)}){re.escape(literal)}"
        if found := re.fullmatch(pattern, text, re.S):
            return found
    return None


def _spellings(content: str) -> str:
    forms = dict.fromkeys((content, content.strip(), content.lstrip(), content.rstrip()))
    return "|".join(map(re.escape, forms))
