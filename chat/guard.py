"""Stand-ins: characters that hold the place of what must not become a control token while a template renders."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

# Unicode's three private-use areas: characters without meaning, of which a text leaves plenty free.
_PRIVATE = (range(0xE000, 0xF900), range(0xF0000, 0xFFFFE), range(0x100000, 0x10FFFE))


class Guard:
    """Hides the texts of `specials` in `contents` and finds them again; `around` is what no stand-in may occur in."""

    def __init__(self, contents: Iterable[str], specials: Sequence[str], around: str = "") -> None:
        self._contents, self._specials = list(contents), tuple(specials)
        joined = "\0".join(self._contents)
        self._free = _unused(joined, around, *specials)
        self._words: dict[str, str] = {}
        self._edges: dict[str, str] = {}
        candidates = [special for special in specials if special and special[0] in joined]
        for special in sorted(candidates, key=len, reverse=True):
            if special in joined:
                self._words[special] = next(self._free)

    def mark(self) -> str:
        """Give a character that occurs nowhere and stands for nothing."""
        return next(self._free)

    def plain(self, text: str) -> str:
        """Give `text` with the stand-ins turned back."""
        return "".join(part for part, _trusted in self.split(text))

    @property
    def hides(self) -> bool:
        """Whether there is anything to hide."""
        return bool(self._words or self._edges)

    def hide(self, content: str) -> str:
        """Give `content` with a stand-in for every special text, and for its edges once they are guarded."""
        for special, character in self._words.items():
            content = content.replace(special, character)
        if self._edges and self._risky(content):
            for index in _edges_of(content):
                character = self._edges.get(content[index], content[index])
                content = content[:index] + character + content[index + 1 :]
        return content

    def guard_edges(self) -> bool:
        """Hide from now on the first and last characters of contents that may complete a special text together
        with what the template writes beside them. Gives whether there are any."""
        for content in self._contents:
            if self._risky(content):
                for index in _edges_of(content):
                    if content[index] not in self._edges:
                        self._edges[content[index]] = next(self._free)
        return bool(self._edges)

    def _risky(self, content: str) -> bool:
        stripped = content.strip()
        return _touches(content, self._specials) or (
            len(stripped) < len(content) and _touches(stripped, self._specials)
        )

    def meant(self, rendered: str) -> list[str]:
        """Give the special texts that a tokenizer would read in `rendered`, in their order."""
        return _pattern(self._specials).findall(rendered)

    def places(self, rendered: str) -> list[int]:
        """Give the positions where `rendered` may be cut: everywhere but inside a special text that is meant."""
        inside = {
            place
            for found in _pattern(self._specials).finditer(rendered)
            for place in range(found.start() + 1, found.end())
        }
        return [place for place in range(len(rendered)) if place not in inside]

    def split(self, rendered: str) -> tuple[tuple[str, bool], ...]:
        """Give `rendered` as pieces (text, trusted), the stand-ins turned back."""
        back = {character: text for text, character in (*self._words.items(), *self._edges.items())}
        if not back or not any(character in rendered for character in back):
            return ((rendered, True),)
        parts = re.split(f"([{''.join(back)}])", rendered)
        return tuple((back[part], False) if part in back else (part, True) for part in parts if part)


def _unused(*texts: str) -> Iterator[str]:
    used = set().union(*texts)
    yield from (chr(code) for area in _PRIVATE for code in area if chr(code) not in used)


def _edges_of(content: str) -> Iterator[int]:
    """Positions of the first and last character, with and without the blanks around the text."""
    start, end = len(content) - len(content.lstrip()), len(content.rstrip()) - 1
    yield from sorted({i for i in (0, start, end, len(content) - 1) if 0 <= i < len(content)})


def _touches(text: str, specials: tuple[str, ...]) -> bool:
    """Whether `text` begins as a special text ends, ends as one begins, or lies inside one."""
    if not text or not specials:
        return False
    known = _parts(specials)
    longest = min(known.longest, len(text))
    return (
        (text[-1] in known.head_ends and any(text[-size:] in known.heads for size in range(1, longest + 1)))
        or (text[0] in known.tail_starts and any(text[:size] in known.tails for size in range(1, longest + 1)))
        or (len(text) <= known.longest and text in known.joined)
    )


@dataclass(frozen=True, slots=True)
class _Parts:
    """Every proper beginning and end of the special texts, and the characters that make most contents harmless."""

    heads: frozenset[str]
    tails: frozenset[str]
    head_ends: frozenset[str]
    tail_starts: frozenset[str]
    longest: int
    joined: str


@lru_cache(maxsize=8)
def _parts(specials: tuple[str, ...]) -> _Parts:
    heads = frozenset(special[:size] for special in specials for size in range(1, len(special)))
    tails = frozenset(special[size:] for special in specials for size in range(1, len(special)))
    ends, starts = frozenset(head[-1] for head in heads), frozenset(tail[0] for tail in tails)
    return _Parts(heads, tails, ends, starts, max(map(len, specials)), "\0".join(specials))


@lru_cache(maxsize=8)
def _pattern(specials: tuple[str, ...]) -> re.Pattern[str]:
    texts = sorted(filter(None, specials), key=len, reverse=True)
    return re.compile("|".join(map(re.escape, texts)) or r"(?!)")
