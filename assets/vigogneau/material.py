"""The corpus as values: everything that train.py learns from, read once from corpus/*.toml."""

import tomllib
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
LANGUAGES = ("fr", "en")
DECLINE = "decline"
STYLES = ("usual", "short", "child", "formal")
Texts = dict[str, list[str]]
"""Lists of texts by language."""


def read(name: str) -> dict:
    """Give the table in corpus/`name`.toml."""
    return tomllib.loads((HERE / "corpus" / f"{name}.toml").read_text(encoding="utf-8"))


@dataclass(frozen=True, slots=True)
class FollowUp:
    """A second question that only makes sense after a first: identifiers, and wordings by language."""

    first: str
    then: str
    wordings: Texts


@dataclass(frozen=True, slots=True)
class Material:
    """The whole corpus; `phrasings`, `hints` and `answers` are by question identifier."""

    questions: dict[str, str]
    phrasings: dict[str, Texts]
    hints: dict[str, Texts]
    answers: dict[str, dict[str, str]]
    synonyms: dict[str, list[list[str]]]
    frames: Texts
    off_topic: Texts
    elsewhere: dict[str, dict[str, list[str]]]
    follow_ups: list[FollowUp]
    systems: dict[str, list[str]]


def hands() -> list[str]:
    """Give the names of the phrasing files, one for each writer."""
    return sorted(path.stem for path in (HERE / "corpus").glob("phrasings-*.toml"))


def phrasings(names: list[str]) -> dict[str, Texts]:
    """Give the phrasings of the named files by identifier and language, each text once."""
    tables = [read(name) for name in names]
    return {
        key: {lang: list(dict.fromkeys(text for table in tables for text in table.get(key, {}).get(lang, ())))
              for lang in LANGUAGES}
        for key in questions()
    }  # fmt: skip


def questions() -> dict[str, str]:
    """Give the question identifiers with what each one asks."""
    return read("questions")["questions"]


def load(aside: str | None = None) -> Material:
    """Give the corpus; with `aside`, without that phrasing file, every tenth off-topic question and fifth frame.

    What is set aside so is a split to choose settings on, made like the held-out set in tests/data.
    """
    lexicon, hints = read("lexicon"), read("hints")
    return Material(
        questions=questions(),
        phrasings=phrasings([name for name in hands() if name != aside]),
        hints={key: {lang: line.split(", ") for lang, line in hints[key].items()} for key in questions()},
        answers=read("answers"),
        synonyms={lang: lexicon[lang]["groups"] for lang in LANGUAGES},
        frames={lang: _thin(lexicon["frames"][lang], 5 if aside else 0) for lang in LANGUAGES},
        off_topic={lang: _thin(read("off_topic")[lang], 10 if aside else 0) for lang in LANGUAGES},
        elsewhere=read("elsewhere"),
        follow_ups=[
            FollowUp(row["first"], row["then"], {lang: row[lang] for lang in LANGUAGES})
            for row in read("followups")["followup"]
        ],
        systems=read("systems"),
    )


def _thin(texts: list[str], every: int) -> list[str]:
    return [text for at, text in enumerate(texts) if not every or at % every]


def answer(material: Material, key: str, lang: str, style: str) -> str:
    """Give the answer to `key` (or `DECLINE`) in a language and one of `STYLES`."""
    texts = material.answers[key]
    if style == "formal":
        opening, closing = material.systems[f"formal_{lang}"]
        return f"{opening} {texts[lang]} {closing}"
    return texts[lang] if style == "usual" else texts[f"{lang}_{style}"]
