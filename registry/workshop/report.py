"""What a product is worth beside its reference, as it stands in a record and on the screen."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ...core.errors import FormatError
from ...core.i18n import _

LIMIT, AGREEMENT = 3.0, 0.1
"""Times the reference's perplexity above which, and share of equal first choices below which, a product is garbage.

The second is for models that know another kind of text than ours: their perplexity is then worse than that of noise.
On such texts the low-bit types of a 4M model that still answered agreed on 34 % and more, noise on none.
"""


@dataclass(frozen=True, slots=True)
class Score:
    """How a product reads one text: `tokens` is how many it had to predict.

    `perplexity` is the product's, `reference` the reference's; `divergence` is the mean KL divergence of the next
    token's distribution from the reference's, in nats; `agreement` the share of tokens, 0 to 1, of which both think
    the same one likeliest. None where the product gives no numbers.
    """

    tokens: int
    reference: float
    perplexity: float | None = None
    divergence: float | None = None
    agreement: float | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """Scores by language; sizes in bytes, `speed` in generated tokens a second, None where it was not measured."""

    product: str
    reference: str
    backend: str
    reference_backend: str
    scores: Mapping[str, Score]
    size: int
    reference_size: int
    speed: float | None = None

    @property
    def garbage(self) -> str | None:
        """Say why the product is of no use, or None."""
        for language, score in self.scores.items():
            if score.perplexity is None or score.agreement is None:
                text = _("{name} computes values that are no numbers.")
            elif score.perplexity > LIMIT * score.reference:
                text = _("{name} has a perplexity of {value} on the text in {language}; its reference has {other}.")
            elif score.agreement < AGREEMENT:
                text = _("{name} agrees with its reference on {share} of the tokens of the text in {language}.")
            else:
                continue
            return text.format(
                name=self.product,
                language=language,
                value=_number(score.perplexity),
                other=_number(score.reference),
                share=_share(score.agreement),
            )
        return None

    def values(self) -> dict[str, Any]:
        """Give what a record and `--json` hold."""
        return {
            "product": self.product,
            "reference": self.reference,
            "backend": self.backend,
            "reference_backend": self.reference_backend,
            "size": self.size,
            "reference_size": self.reference_size,
            "tokens_per_s": self.speed,
            "texts": {language: _values(score) for language, score in self.scores.items()},
            "garbage": self.garbage,
        }

    @classmethod
    def from_values(cls, values: Any) -> "Report":
        """Read what `values` gave. Raises FormatError for anything else."""
        try:
            return cls(
                **{name: _text(values[name]) for name in ("product", "reference", "backend", "reference_backend")},
                scores={_text(language): _score(one) for language, one in values["texts"].items()},
                size=_count(values["size"]),
                reference_size=_count(values["reference_size"]),
                speed=_optional(values["tokens_per_s"]),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise FormatError(
                _("The quality report is damaged: {reason}.").format(reason=error), _("Make the model again.")
            ) from error


def table(report: Report) -> list[tuple[str, ...]]:
    """Give the report as rows for people: a label, then a value for each language or one for the whole."""
    scores = report.scores.values()
    rows = [
        ("", *report.scores),
        (_("perplexity"), *(_number(score.perplexity) for score in scores)),
        (_("perplexity of the reference"), *(_number(score.reference) for score in scores)),
        (_("KL divergence"), *(_unit(score.divergence, _("{value} nats")) for score in scores)),
        (_("same first choice"), *(_share(score.agreement) for score in scores)),
        (_("tokens read"), *(str(score.tokens) for score in scores)),
    ]
    blank = [""] * (len(report.scores) - 1)
    if report.reference_size:
        rows.append((_("size beside the reference"), _share(report.size / report.reference_size), *blank))
    rows.append((_("speed"), _unit(report.speed, _("{value} tokens/s")), *blank))
    return rows


def _values(score: Score) -> dict[str, Any]:
    return {
        "tokens": score.tokens,
        "perplexity": score.perplexity,
        "reference_perplexity": score.reference,
        "kl_divergence": score.divergence,
        "top1_agreement": score.agreement,
    }


def _score(values: Any) -> Score:
    return Score(
        _count(values["tokens"]),
        _float(values["reference_perplexity"]),
        *(_optional(values[name]) for name in ("perplexity", "kl_divergence", "top1_agreement")),
    )


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(value)
    return value


def _count(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise TypeError(value)
    return value


def _float(value: Any) -> float:
    if type(value) not in (int, float):
        raise TypeError(value)
    return float(value)


def _optional(value: Any) -> float | None:
    return None if value is None else _float(value)


def _number(value: float | None) -> str:
    """Give three or four digits of a number, in the way of people."""
    if value is None:
        return "–"
    if value >= 1e6 or 0 < value < 1e-4:
        return f"{value:.1e}"
    return f"{value:.0f}" if value >= 1000 else f"{value:.3g}" if value >= 1 or value == 0 else f"{value:.4f}"


def _share(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f} %"


def _unit(value: float | None, text: str) -> str:
    return "–" if value is None else text.format(value=_number(value))
