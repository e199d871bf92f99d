"""How likely the model itself held a token and those it might have written instead: one definition for all engines."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from .base import Chosen

if TYPE_CHECKING:
    import numpy as np

LEAST = -9999.0
"""What the OpenAI API gives for a token that is next to impossible; JSON has no −∞."""


def weigh(logits: "np.ndarray", token: int, count: int, text: Callable[[int], str]) -> Chosen:
    """Give what raw `logits` (n_vocab,) say of `token` and of the `count` most likely ones, of equal ones the lower id.

    Logarithms of the softmax, in float64; `text` gives the text of an id.
    """
    import numpy as np  # only for those who ask

    values = logits.astype(np.float64)
    top = values.max()
    values -= top + np.log(np.exp(values - top).sum())
    count = min(count, len(values))
    least = np.partition(values, -count)[-count]
    places = np.flatnonzero(values >= least)
    best = places[np.argsort(-values[places], kind="stable")][:count].tolist()
    return Chosen(text(token), _told(values[token]), tuple((text(one), _told(values[one])) for one in best))


def _told(value: float) -> float:
    return max(LEAST, float(value))
