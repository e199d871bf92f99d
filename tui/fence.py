"""Code blocks of an answer."""

import re
from dataclasses import dataclass

# CommonMark §4.5: a fence is three or more backticks or tildes; the closing one is at least as long.
_FENCE = re.compile(r"^ {0,3}(`{3,}|~{3,})[ \t]*([^\n`]*)\n(.*?)(?:^ {0,3}\1[`~]*[ \t]*$|\Z)", re.M | re.S)


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced code block: its language as written, and its text."""

    language: str
    text: str


def blocks(markdown: str) -> list[Block]:
    """Give the fenced code blocks of `markdown`, in their order."""
    return [Block(language.split(" ")[0], text) for _fence, language, text in _FENCE.findall(markdown)]
