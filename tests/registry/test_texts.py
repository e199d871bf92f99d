"""The texts to calibrate and to measure with."""

import re
from pathlib import Path

import pytest
from vigtui.core.errors import CapacityError, FormatError, UsageError, VigtuiError
from vigtui.registry.workshop import texts

WORDS = 8


def sequences(text: str) -> set[tuple[str, ...]]:
    words = re.findall(r"\w+", text.lower())
    return {tuple(words[at : at + WORDS]) for at in range(len(words) - WORDS + 1)}


@pytest.mark.parametrize("language", texts.LANGUAGES)
def test_evaluation_shares_no_eight_words_with_the_calibration(language: str) -> None:
    seen = set().union(*(sequences("\n\n".join(texts.calibration(one))) for one in texts.LANGUAGES))
    found = sequences(texts.evaluation()[language])
    assert len(found) > 1000
    assert not found & seen


@pytest.mark.parametrize("language", texts.LANGUAGES)
def test_our_texts_are_long_and_varied(language: str) -> None:
    paragraphs = texts.calibration(language)
    assert len(paragraphs) > 100
    assert sum(len(paragraph.encode()) for paragraph in paragraphs) > 40_000
    assert len(set(paragraphs)) == len(paragraphs)
    text = "\n\n".join(paragraphs)
    assert all(mark in text for mark in ("def ", "http" if language == "en" else "SELECT", "| ", "=", "?", "0"))


def test_french_is_set_as_in_print() -> None:
    text = texts.evaluation()["fr"]
    assert "«\u00a0" in text and "\u00a0?" in text and "’" in text
    assert not re.search(r"[a-zé] [:;!?»]", text)


def test_mixed_gives_both_languages_in_turn() -> None:
    french, english, mixed = (texts.calibration(name) for name in ("fr", "en", "mixed"))
    assert mixed[:4] == [french[0], english[0], french[1], english[1]]
    assert sorted(mixed) == sorted(french + english)


def test_a_file_is_read_by_paragraph(tmp_path: Path) -> None:
    path = tmp_path / "mine.txt"
    path.write_bytes("\ufeffUn été.\r\nSuite.\r\n\r\n  \r\n\r\nDeux.\r\n".encode())
    assert texts.calibration(str(path)) == ["Un été.\nSuite.", "Deux."]


@pytest.mark.parametrize(
    ("content", "error"),
    [(None, UsageError), (b" \n\n ", UsageError), (b"caf\xe9", FormatError), (b"a" * 100, CapacityError)],
    ids=["missing", "blank", "latin-1", "long"],
)
def test_no_text_is_refused_with_a_next_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | None, error: type[VigtuiError]
) -> None:
    monkeypatch.setattr(texts, "LIMIT", 99)
    path = tmp_path / "mine.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(error) as raised:
        texts.calibration(str(path))
    assert "mine.txt" in raised.value.message and raised.value.hint


def test_a_folder_is_no_text(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        texts.calibration(str(tmp_path))
