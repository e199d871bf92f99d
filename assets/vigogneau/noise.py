"""Augmentation: the ways in which a question may be reworded, misspelt or garbled, drawn afresh every time."""

import random
import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from vigtui.assets.vigogneau.overlap import content, plain

_EDGES = re.compile(r"^(\W*(?:[dlnmtsjcq]u?['’])?)(.*?)(\W*)$", re.IGNORECASE)
_KEYS = {a: b for a, b in zip("azertyuiopqsdfghjklmwxcvbn", "zrtyuiopaqsdfghjklmwxcvbnz", strict=True)}
_STARTS = ("b", "br", "c", "cl", "d", "dr", "f", "fl", "g", "gr", "j", "k", "l", "m", "n", "p", "pr", "qu", "r", "s",
           "st", "t", "tr", "v", "w", "z", "ch", "sh", "")  # fmt: skip
_MIDDLES = ("a", "e", "i", "o", "u", "ai", "ou", "é", "oi", "ee", "on", "an", "er")
_ENDS = ("", "", "", "r", "s", "t", "l", "n", "ck", "nd", "que", "tion", "x", "ble", "ing", "er")


def pseudo_word(rng: random.Random) -> str:
    """Give a word that exists in no language but could."""
    syllables = (rng.choice(_STARTS) + rng.choice(_MIDDLES) for _ in range(rng.choice((1, 2, 2, 3))))
    return "".join(syllables) + rng.choice(_ENDS)


@dataclass(frozen=True, slots=True)
class Thesaurus:
    """Words and expressions of one language that may stand for one another."""

    others: dict[str, list[str]]

    @classmethod
    def of(cls, groups: Sequence[Sequence[str]]) -> "Thesaurus":
        """Give the thesaurus of groups of equals; a word in several groups may become any of theirs."""
        others: dict[str, list[str]] = {}
        for group in groups:
            for word in group:
                others.setdefault(word.lower(), []).extend(other for other in group if other != word)
        return cls(others)

    def swap(self, text: str, share: float, rng: random.Random) -> str:
        """Give `text` with about `share` of the expressions that have equals replaced, longest match first."""
        words, swapped, at = text.split(), [], 0
        while at < len(words):
            for length in (3, 2, 1):
                before, key, after = _core(" ".join(words[at : at + length]))
                equals = self.others.get(key.lower())
                if at + length <= len(words) and equals:
                    kept = rng.random() >= share
                    swapped.append(before + (key if kept else rng.choice(equals)) + after)
                    at += length
                    break
            else:
                swapped.append(words[at])
                at += 1
        return " ".join(swapped)


def _core(word: str) -> tuple[str, str, str]:
    """Give what stands before, the word itself and what stands after it (elision and punctuation)."""
    match = _EDGES.match(word)
    assert match is not None, "the pattern matches every string"
    return match[1], match[2], match[3]


def is_content(word: str) -> bool:
    """Tell whether a word of a question carries meaning."""
    return bool(content(word))


def replace(text: str, share: float, rng: random.Random, source: Callable[[], str]) -> tuple[str, float]:
    """Give `text` with content words replaced with the given chance, and the share really replaced."""
    words = text.split()
    heavy = [at for at, word in enumerate(words) if is_content(word)]
    hit = [at for at in heavy if rng.random() < share]
    for at in hit:
        before, _, after = _core(words[at])
        words[at] = before + source() + after
    return " ".join(words), len(hit) / max(len(heavy), 1)


def drop(text: str, share: float, rng: random.Random) -> str:
    """Give `text` without some of its words, never without all; function words go twice as often."""
    words = text.split()
    kept = [word for word in words if rng.random() >= (share if is_content(word) else 2 * share)]
    return " ".join(kept or words)


def shuffle(text: str, rng: random.Random) -> str:
    """Give `text` with its words in another order: all of them, or two neighbours swapped."""
    words = text.split()
    if rng.random() < 0.4:
        rng.shuffle(words)
    elif len(words) > 1:
        at = rng.randrange(len(words) - 1)
        words[at], words[at + 1] = words[at + 1], words[at]
    return " ".join(words)


def misspell(text: str, rng: random.Random) -> str:
    """Give `text` with one letter dropped, doubled, swapped with the next or hit beside its key."""
    if len(text) < 4:
        return text
    at = rng.randrange(1, len(text) - 1)
    before, letter, after = text[:at], text[at], text[at + 1 :]
    beside = _KEYS.get(letter.lower(), letter)
    return rng.choice((before + after, before + 2 * letter + after, before + after[:1] + letter + after[1:],
                       before + beside + after))  # fmt: skip


def surface(text: str, rng: random.Random) -> str:
    """Give `text` as a hurried writer types it: accents, capitals or punctuation lost, a typo or two."""
    draw = rng.random
    if draw() < 0.2:
        spread = unicodedata.normalize("NFKD", text)
        text = "".join(letter for letter in spread if not unicodedata.combining(letter))
    if draw() < 0.3:
        text = text.lower()
    elif draw() < 0.04:
        text = text.upper()
    if draw() < 0.3:
        text = text.rstrip(" ?!.…") + rng.choice(("", "", "", ".", "?", " ?", " ??", " !", "...", " svp", " pls"))
    if draw() < 0.08:
        text = re.sub(r"[^\w\s`/.-]", " ", text).strip() or text
    while draw() < 0.18:
        text = misspell(text, rng)
    return text


def frame(text: str, frames: Sequence[str], rng: random.Random) -> str:
    """Give `text` inside one of the frames, sometimes with its first letter in lower case."""
    inner = text[:1].lower() + text[1:] if rng.random() < 0.5 else text
    return rng.choice(frames).replace("{q}", inner)


__all__ = ["Thesaurus", "drop", "frame", "is_content", "misspell", "plain", "pseudo_word", "replace", "shuffle",
           "surface"]  # fmt: skip
