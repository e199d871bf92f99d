"""A quality report as bars: how far a product is from what it was made of."""

from collections.abc import Iterator

from textual.content import Content

from ...core.i18n import _
from ...core.text import line
from ...registry.workshop.report import Report, Score
from .. import number
from ..cli.output import size

WIDTH = 24
"""Cells of a whole bar."""


def chart(report: Report) -> Content:
    """Give the size and, for each language, how often the first choice is the same and what the text surprises."""
    return Content("\n").join(_rows(report))


def _rows(report: Report) -> Iterator[Content]:
    if report.reference_size:
        said = _("{size}, from {before}").format(size=size(report.size), before=size(report.reference_size))
        yield _row(_("size"), report.size / report.reference_size, said)
    for language, score in report.scores.items():
        name = _("same first choice, {language}").format(language=line(language))
        yield _row(name, score.agreement, _percent(score.agreement))
        yield _row(_("perplexity, {language}").format(language=line(language)), _ratio(score), _surprise(score))
    if report.speed is not None:
        name = _("speed")
        yield Content.assemble((f"{name:<24}", "$foreground 60%"), " " * (WIDTH + 2), _speed(report.speed))


def _row(name: str, share: float | None, said: str) -> Content:
    full = round(WIDTH * min(max(share or 0.0, 0.0), 1.0))
    return Content.assemble(
        (f"{name:<24}", "$foreground 60%"),
        ("█" * full, "$primary"),
        ("░" * (WIDTH - full), "$foreground 30%"),
        "  ",
        said,
    )


def _ratio(score: Score) -> float | None:
    """Give how much of the reference's certainty is left: 1 when nothing is lost."""
    return score.reference / score.perplexity if score.perplexity else None


def _surprise(score: Score) -> str:
    value = "–" if score.perplexity is None else number.decimal(score.perplexity, 2)
    text = _("{value}, from {before}").format(value=value, before=number.decimal(score.reference, 2))
    if score.divergence is None:
        return text
    return text + " · " + _("KL {value}").format(value=number.decimal(score.divergence, 4))


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{number.decimal(100 * share)} %"


def _speed(speed: float) -> str:
    return _("{speed} tokens/s").format(speed=number.decimal(speed))
