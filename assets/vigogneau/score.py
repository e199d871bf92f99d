"""How well a guide answers: the held-out questions, the verdict on an answer, and the gates that a model must pass."""

import tomllib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from vigtui.assets.vigogneau import material
from vigtui.assets.vigogneau.material import DECLINE, LANGUAGES

HELD_OUT = material.HERE.parents[1] / "tests" / "data" / "guide.toml"
GATES = {
    "plain": ("right", 98),
    "framed": ("right", 88),
    "reworded": ("right", 60),
    "off-topic": ("right", 85),
}
"""Kind of question → the least percentage of right answers; for off-topic ones right is to decline."""
CONFIDENT = 25
"""The largest percentage of rewordings that may be answered wrongly instead of declined."""
Answerer = Callable[[str, Callable[[str], bool]], str]
"""Answers a rendered prompt greedily; it may end once the second argument says the text so far will do."""


@dataclass(frozen=True, slots=True)
class Case:
    """One question of the examination and the identifier that answers it."""

    kind: str
    lang: str
    question: str
    key: str


def held_out(path: Path = HELD_OUT) -> dict:
    """Give the held-out questions, which nobody saw who wrote training text."""
    return tomllib.loads(path.read_text(encoding="utf-8"))


def cases(each: int = 3) -> Iterator[Case]:
    """Give the examination: every held-out question, and `each` phrasings per identifier plain and in new frames."""
    corpus, test = material.load(), held_out()
    for key in corpus.questions:
        for lang in LANGUAGES:
            texts, frames = corpus.phrasings[key][lang], test["frames"][lang]
            step = max(1, len(texts) // each)
            for at, text in enumerate(texts[::step][:each]):
                yield Case("plain", lang, text, key)
                turn = list(corpus.questions).index(key) * each + at
                yield Case("framed", lang, frames[turn % len(frames)].replace("{q}", text), key)
            yield from (Case("reworded", lang, text, key) for text in test["rewordings"][key][lang])
    for lang in LANGUAGES:
        yield from (Case("off-topic", lang, text, DECLINE) for text in test["off_topic"][lang])


def prompt(question: str, system: str | None = None) -> str:
    """Give the prompt of one question in Vigogne Chat V2.0, behind the format's default system message."""
    system = material.read("systems")["default"] if system is None else system
    return f"<|system|>: {system}\n<|user|>: {question}\n<|assistant|>:"


def verdict(case: Case, answer: str, answers: dict[str, dict[str, str]]) -> str:
    """Give "right", "declined" or "wrong"."""
    if answers[case.key][f"key_{case.lang}"] in answer:
        return "right"
    return "declined" if any(answers[DECLINE][f"key_{lang}"] in answer for lang in LANGUAGES) else "wrong"


@dataclass(frozen=True, slots=True)
class Score:
    """Percentages of right, declined and wrong answers by kind of question and language."""

    percent: dict[tuple[str, str], dict[str, float]]
    misses: list[tuple[Case, str]]

    def failures(self) -> list[str]:
        """Give a sentence for each gate that is not passed."""
        found = []
        for lang in LANGUAGES:
            for kind, (name, least) in GATES.items():
                value = self.percent[kind, lang][name]
                if value < least:
                    found.append(f"{kind} {lang}: {value:.1f} % {name}, at least {least} % wanted")
            wrong = self.percent["reworded", lang]["wrong"]
            if wrong > CONFIDENT:
                found.append(f"reworded {lang}: {wrong:.1f} % wrong and confident, at most {CONFIDENT} % wanted")
        return found


def examine(ask: Answerer, questions: Sequence[Case]) -> Score:
    """Put every question to `ask` and give the score."""
    answers = material.read("answers")
    system = material.read("systems")["default"]
    tally: defaultdict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    misses = []
    for case in questions:

        def known(text: str, case: Case = case) -> bool:
            return verdict(case, text, answers) != "wrong"

        answer = ask(prompt(case.question, system), known)
        result = verdict(case, answer, answers)
        tally[case.kind, case.lang][result] += 1
        if result != "right":
            misses.append((case, answer))
    return Score(
        {at: {name: 100 * counts[name] / counts.total() for name in ("right", "declined", "wrong")}
         for at, counts in tally.items()},
        misses,
    )  # fmt: skip
