"""What the screen looks like, as text: its characters, and below them the style of each, a letter a style."""

import os
import string
from itertools import groupby
from pathlib import Path

import textual
from textual.app import App

FOLDER = Path(__file__).parent / "snapshots"
VERSION = "8.2.8"
"""The Textual that drew the pictures; another one may draw a margin differently."""
LETTERS = string.ascii_lowercase + string.ascii_uppercase + string.digits


def picture(app: App[None]) -> tuple[str, str]:
    """Give the screen's text, and its styles with their legend."""
    size, legend = app.size, dict[str, str]()
    lines: list[str] = []
    styles: list[str] = []
    for strip in app.screen._compositor.render_strips(size):
        lines.append(strip.text.rstrip())
        cells = [(_letter(legend, segment.style), segment.cell_length) for segment in strip]
        runs = [(letter, sum(length for _l, length in run)) for letter, run in groupby(cells, key=lambda cell: cell[0])]
        styles.append(" ".join(f"{letter}{length}" for letter, length in runs))
    return "\n".join(lines), "\n".join([*styles, *(f"{letter} {style}" for style, letter in legend.items())])


def _letter(legend: dict[str, str], style: object) -> str:
    described = _described(style)
    return legend.setdefault(described, LETTERS[len(legend) % len(LETTERS)])


def _described(style: object) -> str:
    if style is None:
        return "plain"
    kinds = [name for name in ("bold", "dim", "italic", "underline", "reverse", "strike") if getattr(style, name)]
    return " ".join([*kinds, f"{_hex(style.color)} on {_hex(style.bgcolor)}"])  # pyright: ignore


def _hex(color: object) -> str:
    return "default" if color is None else color.name  # pyright: ignore


def compare(name: str, pictures: dict[str, tuple[str, str]]) -> None:
    """Compare the pictures of a screen, by theme, with the file kept; VIGTUI_SNAPSHOTS=1 keeps them anew."""
    texts = {text for text, _styles in pictures.values()}
    assert len(texts) == 1, "the themes show different words:\n" + "\n".join(sorted(texts))
    parts = [texts.pop(), *(f"── {theme}\n{styles}" for theme, (_text, styles) in pictures.items())]
    drawn, path = "\n".join(parts) + "\n", FOLDER / f"{name}.txt"
    if os.environ.get("VIGTUI_SNAPSHOTS"):
        FOLDER.mkdir(exist_ok=True)
        path.write_text(drawn, encoding="utf-8")
    if textual.__version__ == VERSION:
        assert drawn == path.read_text(encoding="utf-8")
