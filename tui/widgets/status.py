"""The line below the prompt: who answers, how full the context is, how fast the last answer came."""

from dataclasses import dataclass, replace

from textual.content import Content
from textual.widgets import Static

from ...core.i18n import _
from ...core.text import line
from .. import number
from ..link import link


@dataclass(frozen=True, slots=True)
class State:
    """What the line shows. Counts in tokens; `exact` is false while the count lags behind what is typed, `about` true
    where it can only be an estimate."""

    model: str = ""
    backend: str = ""
    format: str = ""
    used: int | None = None
    context: int = 0
    exact: bool = True
    about: bool = False
    speed: float | None = None
    activity: str = ""
    fits: bool = True


class Status(Static):
    """Shows a State; its parts can be clicked."""

    def __init__(self) -> None:
        super().__init__(id="status")
        self.state = State()

    def show(self, **values: object) -> None:
        """Change some values of the state."""
        state = replace(self.state, **values)  # pyright: ignore[reportArgumentType]
        if state != self.state:
            self.state = state
            self.update(self.render_state())

    def on_resize(self) -> None:
        self.update(self.render_state())

    def render_state(self) -> Content:
        """Give the line, as much of it as fits."""
        state = self.state
        parts: list[tuple[int, Content | None]] = [  # how soon each is left out, and what it is
            (0, Content.styled(line(state.activity), "bold $text-accent") if state.activity else None),
            (0, link(line(state.model) or _("no model"), "screen.models", "bold")),
            (2, Content(line(state.backend)) if state.backend else None),
            (3, link(line(state.format), "screen.formats") if state.format else None),
            (0, self._window() if state.context else None),
            (1, Content(self._speed()) if state.speed is not None else None),
        ]
        return _fitting([(rank, part) for rank, part in parts if part is not None], (self.size.width or 80))

    def _speed(self) -> str:
        return _("{speed} tokens/s").format(speed=number.decimal(self.state.speed or 0.0))

    def _window(self) -> Content:
        state = self.state
        sign = "≈ " if state.about else ""
        used = "…" if state.used is None else sign + number.count(state.used)
        text = _("{used} of {context} tokens").format(used=used, context=number.count(state.context))
        if state.used is not None:
            text += _(", {free} free").format(free=sign + number.count(max(0, state.context - state.used)))
        share = (state.used or 0) / state.context
        style = "$text-error" if not state.fits else "$text-warning" if share > 0.8 else ""
        if not state.exact:
            style += " dim"
        return Content.styled(text, style)


def _fitting(parts: list[tuple[int, Content]], width: int) -> Content:
    """Join `parts`; those of the highest rank are left out first, until the line fits."""
    chosen = [part for _rank, part in parts]
    for most in (2, 1, 0):
        if sum(part.cell_length + 3 for part in chosen) - 3 > width:
            chosen = [part for rank, part in parts if rank <= most]
    return Content.styled(" · ", "$foreground 40%").join(chosen)
