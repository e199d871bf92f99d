"""Training examples: the corpus, augmented afresh for every batch, packed into rows behind one system message."""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
from sentencepiece import SentencePieceProcessor
from vigtui.assets.vigogneau import noise
from vigtui.assets.vigogneau.material import DECLINE, LANGUAGES, STYLES, Material, answer

DECISION_WEIGHT = 4.0
DROPOUT = 0.1
BRIEF = 3
"""Words up to which a question is too short to lose one."""
STYLE_SHARES = {"usual": 0.76, "short": 0.09, "child": 0.09, "formal": 0.06}
Voice = Callable[[str, str], str]
"""A change of tone: an answer and its language in, the answer in that tone out."""


@dataclass(frozen=True, slots=True)
class Row:
    """One packed row of token ids and, for each, what belongs to it.

    Segments count from 0, the shared system message; -1 is padding. Weights are those of the loss.
    """

    ids: np.ndarray
    positions: np.ndarray
    segments: np.ndarray
    weights: np.ndarray


@dataclass(slots=True)
class Questions:
    """Draws augmented questions with the identifier that answers them.

    `calm` grows to 1 towards the end of training: then more questions are left as they were written.
    """

    material: Material
    rng: random.Random
    declined: float = 0.22
    calm: float = 0.0
    thesaurus: dict[str, noise.Thesaurus] = field(init=False)
    keys: list[str] = field(init=False)

    def __post_init__(self) -> None:
        self.thesaurus = {lang: noise.Thesaurus.of(groups) for lang, groups in self.material.synonyms.items()}
        self.keys = list(self.material.questions)

    def draw(self) -> tuple[str, str, str]:
        """Give a question, its language and the identifier of its answer, which may be `DECLINE`."""
        lang = self.rng.choice(LANGUAGES)
        if self.rng.random() < self.declined:
            return self._foreign(lang), lang, DECLINE
        key = self.rng.choice(self.keys)
        return *self.known(key, lang), key

    def known(self, key: str, lang: str) -> tuple[str, str]:
        """Give a question that `key` answers, and its language."""
        rng, draw = self.rng, self.rng.random()
        if draw < 0.1:
            return self._finish(self._hinted(key, lang), lang), lang
        text = rng.choice(self._brief(key, lang) if rng.random() < 0.15 else self.material.phrasings[key][lang])
        if draw < 0.25 + 0.25 * self.calm:
            return text, lang
        text = self.thesaurus[lang].swap(text, rng.choice((0.0, 0.3, 0.6)), rng)
        if draw > 0.6 and len(text.split()) > BRIEF:
            text = self._blur(text, key, lang)
        return self._finish(text, lang), lang

    def _brief(self, key: str, lang: str) -> list[str]:
        """Give the shortest phrasings of `key`: what people type first, and few among all phrasings."""
        texts = self.material.phrasings[key][lang]
        return [text for text in texts if len(text.split()) <= BRIEF] or texts

    def _blur(self, text: str, key: str, lang: str) -> str:
        """Give `text` with a part of its words lost, moved or replaced: enough remains to tell the subject."""
        rng = self.rng
        if rng.random() < 0.5:
            text, _ = noise.replace(text, rng.uniform(0.1, 0.45), rng, lambda: self._stranger(lang))
        if rng.random() < 0.4:
            text = noise.drop(text, rng.uniform(0.05, 0.25), rng)
        if rng.random() < 0.25:
            text = noise.shuffle(text, rng)
        if rng.random() < 0.15:
            text = self._together([text, rng.choice(self.material.hints[key][lang])])
        return text

    def _hinted(self, key: str, lang: str) -> str:
        """Give a question put together from words that point to one identifier."""
        rng = self.rng
        hints = rng.sample(self.material.hints[key][lang], rng.choice((1, 2, 2, 3)))
        if rng.random() < 0.6:
            words = rng.choice(self.material.phrasings[rng.choice(self.keys)][lang]).split()
            hints.append(" ".join(word for word in words if not noise.is_content(word)))
        return self._together(hints) + rng.choice((" ?", "?", "", "."))

    def _together(self, parts: list[str]) -> str:
        self.rng.shuffle(parts)
        return " ".join(part for part in parts if part)

    def _stranger(self, lang: str) -> str:
        """Give a word that says nothing about any identifier: invented, or of everyday life."""
        if self.rng.random() < 0.5:
            return noise.pseudo_word(self.rng)
        return self.rng.choice(self.material.elsewhere[lang]["things"]).split()[-1]

    def _foreign(self, lang: str) -> str:
        """Give a question to decline: another topic, a known question robbed of its subject, or a mixture."""
        rng, draw = self.rng, self.rng.random()
        table = self.material.elsewhere[lang]
        if draw < 0.5:
            text = rng.choice(self.material.off_topic[lang] + 2 * table["questions"])
            if rng.random() < 0.4:
                text = self.thesaurus[lang].swap(text, 0.3, rng)
            if rng.random() < 0.4:
                text, _ = noise.replace(text, 0.3, rng, lambda: self._stranger(lang))
        elif draw < 0.78:
            one, two = rng.sample(table["things"], 2)
            text = rng.choice(table["asks"]).replace("{x}", one).replace("{y}", two)
        else:
            phrasing = rng.choice(self.material.phrasings[rng.choice(self.keys)][lang])
            text, robbed = noise.replace(phrasing, 1.0, rng, lambda: self._stranger(lang))
            text = text if robbed else noise.pseudo_word(rng)  # "Qui es-tu ?" has no word that could be taken
        return text if rng.random() < 0.3 else self._finish(text, lang)

    def _finish(self, text: str, lang: str) -> str:
        """Give `text` in a frame one time in four, and typed in haste."""
        if self.rng.random() < 0.25:
            text = noise.frame(text, self.material.frames[lang], self.rng)
        return noise.surface(text, self.rng) if self.rng.random() < 0.6 else text


class Packer:
    """Turns drawn questions into rows of `width` tokens; `share` of the answers are learnt to their end."""

    def __init__(self, material: Material, tokenizer: SentencePieceProcessor, seed: int, *, width: int = 256,
                 full: float = 0.15, declined: float = 0.22, voice: Voice | None = None) -> None:  # fmt: skip
        self.material, self.tokenizer, self.width, self.full, self.voice = material, tokenizer, width, full, voice
        self.rng = random.Random(seed)
        self.questions = Questions(material, self.rng, declined)
        blank, *self.user = tokenizer.encode("\n<|user|>:")
        self.assistant = tokenizer.encode("\n<|assistant|>:")[1:]
        # After </s> SentencePiece, legacy transformers and llama.cpp disagree on a blank before the line break.
        self.after_answer = (self.user, [blank, *self.user])
        self.user_first = tokenizer.encode("<|user|>:")
        self.answers: dict[tuple[str, str, str], tuple[list[int], list[float], int]] = {}
        for style in STYLES:
            self._index(style)

    def _index(self, style: str) -> None:
        """Encode the answers of one style; a token weighs more where answers part, and one is known thereafter."""
        texts = {}
        for key in (*self.material.questions, DECLINE):
            for lang in LANGUAGES:
                text = answer(self.material, key, lang, style)
                texts[key, lang] = self.encode(self.voice(text, lang) if self.voice else text)
        branches: dict[tuple[int, ...], set[int]] = {}
        for ids in texts.values():
            for at, token in enumerate(ids):
                branches.setdefault(tuple(ids[:at]), set()).add(token)
        for (key, lang), ids in texts.items():
            parts = [len(branches[tuple(ids[:at])]) > 1 for at in range(len(ids))]
            known = max(at for at, part in enumerate(parts) if part) + 1
            weights = [DECISION_WEIGHT if part else 1.0 for part in parts] + [1.0]
            self.answers[key, lang, style] = [*ids, self.tokenizer.eos_id()], weights, known

    def encode(self, text: str, dropout: float = 0.0) -> list[int]:
        """Give the ids of a content as it follows a role marker; dropout cuts words at random places (BPE dropout)."""
        return self.tokenizer.encode(text, enable_sampling=dropout > 0, alpha=dropout)

    def rows(self) -> Iterator[Row]:
        """Give rows without end; a row's segments see the row's system message and themselves only."""
        while True:
            style = self.rng.choices(STYLES, [STYLE_SHARES[style] for style in STYLES])[0]
            system = self._system(style)
            parts = [_Part(system, [0.0] * len(system))]
            used = len(system)
            while True:
                part = self._segment(style, bare=len(system) == 1)
                used += len(part.ids)
                if used > self.width:
                    break
                parts.append(part)
            if len(parts) > 1:
                yield self._row(parts)

    def _row(self, parts: list["_Part"]) -> Row:
        start = len(parts[0].ids)
        positions = [*range(start), *(start + at for part in parts[1:] for at in range(len(part.ids)))]
        rest = self.width - len(positions)
        return Row(
            np.array([token for part in parts for token in part.ids] + [0] * rest),
            np.array(positions + [0] * rest),
            np.array([number for number, part in enumerate(parts) for _ in part.ids] + [-1] * rest),
            np.array([weight for part in parts for weight in part.weights] + [0.0] * rest, dtype=np.float32),
        )

    def _system(self, style: str) -> list[int]:
        """Give the ids of a system message that asks for `style`, from BOS on; sometimes there is none."""
        draw, systems = self.rng.random(), self.material.systems
        if style == "usual" and draw < 0.12:
            return [self.tokenizer.bos_id()]
        text = systems["default"] if style == "usual" and draw < 0.7 else self.rng.choice(systems[style])
        return [self.tokenizer.bos_id(), *self.tokenizer.encode(f"<|system|>: {text}")]

    def _segment(self, style: str, bare: bool) -> "_Part":
        """Give one exchange, now and then after an earlier one."""
        rng, draw = self.rng, self.rng.random()
        first: tuple[str, str, str] | None = None
        last = self.questions.draw()
        if draw < 0.04 and self.material.follow_ups:
            row, lang = rng.choice(self.material.follow_ups), last[1]
            first = (*self.questions.known(row.first, lang), row.first)
            text = rng.choice(row.wordings[lang])
            last = noise.surface(text, rng) if rng.random() < 0.5 else text, lang, row.then
        elif draw < 0.08:
            first = self.questions.draw()
        marker = self.user_first if bare else self.user
        if first is None:
            return self._exchange(marker, last, style)
        before = self._exchange(marker, first, style, silent=True)
        after = self._exchange(rng.choice(self.after_answer), last, style)
        return _Part(before.ids + after.ids, before.weights + after.weights)

    def _exchange(self, marker: list[int], drawn: tuple[str, str, str], style: str, *, silent: bool = False) -> "_Part":
        """Give a question and its answer; a silent one is context and carries no loss."""
        text, lang, key = drawn
        question = marker + self.encode(text, DROPOUT if self.rng.random() < 0.6 else 0.0) + self.assistant
        reply, weights, known = self.answers[key, lang, style]
        if silent:
            return _Part(question + reply, [0.0] * (len(question) + len(reply)))
        if self.rng.random() >= (self.full if style == "usual" else 2.5 * self.full):
            reply, weights = reply[: known + 1], weights[: known + 1]
        return _Part(question + reply, [0.0] * len(question) + weights)


@dataclass(frozen=True, slots=True)
class _Part:
    """A stretch of a row: ids and their loss weights."""

    ids: list[int]
    weights: list[float]
