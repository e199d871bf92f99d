"""Progress of long work: one small callback type for loads, conversions and downloads."""

from collections.abc import Callable

Progress = Callable[[str, int, int], None]
"""Called with the stage's name, the work done and the whole (0 when not known), in the stage's own unit."""


def silent(stage: str, done: int, total: int) -> None:
    """Ignore progress."""
