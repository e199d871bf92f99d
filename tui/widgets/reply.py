"""An answer: Markdown that grows while it streams, with its stamp below."""

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.widgets import Markdown, Static

from ...chat.record import Entry, Stamp
from ...core.i18n import _
from ...core.text import SafeStream, line, safe
from .. import number
from ..key import N_
from .turn import Turn


class Reply(Turn):
    """What a model said. `speaker_name` says who while the answer has no stamp yet."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("w", "elsewhere", N_("With…"), tooltip=N_("Have another model answer this once")),
        Binding("b", "beams", N_("Beams"), show=False, tooltip=N_("All hypotheses of the beam search")),
    ]
    LINKS = (("again", N_("again")), ("elsewhere", N_("with…")), ("copy", N_("copy")), ("edit", N_("edit")))

    def __init__(self, entry: Entry | None = None, place: tuple[int, int] = (1, 1), who: str = "") -> None:
        super().__init__(entry, place)
        self.who = who
        self.body = Markdown(safe(entry.content) if entry else "", classes="body", open_links=False)
        self.ahead = Static("", classes="ahead", markup=False)
        self.foot = Static(self.stamp(), classes="foot")
        self._safe = SafeStream()

    def compose_body(self) -> ComposeResult:
        yield self.body
        yield self.ahead
        yield self.foot

    def on_mount(self) -> None:
        self.ahead.display = False
        self.foot.tooltip = self.details()

    def speaker(self) -> str:
        stamp = self.entry.stamp if self.entry else None
        if stamp is None:
            return line(self.who) or _("Model")
        adapters = [name if scale == 1 else f"{name} × {number.plain(scale)}" for name, scale in stamp.adapters]
        return line(" + ".join([stamp.model or _("Model"), *adapters]))

    def stamp(self) -> Content:
        """Give what is known of how the answer came to be, and what went wrong."""
        entry = self.entry
        if entry is None:
            return Content("")
        parts = facts(entry.stamp) if entry.stamp else []
        state = {"partial": _("stopped"), "error": _("broken off")}.get(entry.state)
        text = Content.assemble(*([(state, "$text-warning"), " · "] if state and parts else [state or ""]))
        text = text + Content(line(" · ".join(parts)))
        for notice in entry.stamp.notices if entry.stamp else ():
            text = text + Content.assemble("\n", (f"! {line(notice)}", "$text-warning"))
        return text

    def details(self) -> Content | None:
        """Give the whole stamp, for the tooltip."""
        stamp = self.entry.stamp if self.entry else None
        if stamp is None:
            return None
        facts = {
            _("Model"): stamp.model,
            "sha256": stamp.sha256[:16],
            _("Backend"): stamp.backend,
            _("Format"): f"{stamp.format}  {stamp.format_reason}",
            **{name: number.plain(value) for name, value in stamp.generation.items()},
        }
        return Content("\n".join(f"{name}: {line(str(value))}" for name, value in facts.items() if value))

    async def grow(self, text: str) -> None:
        """Add a piece of the answer."""
        if text := self._safe.feed(text):
            await self.body.append(text)

    def lean(self, leading: str) -> None:
        """Show below the answer what the leading beam has beyond the settled part, and may still take back."""
        ahead = safe(leading).lstrip()[len(self.body.source.lstrip()) :]
        self.ahead.display = bool(ahead.strip())
        self.ahead.update(f"⋯ {ahead}")

    async def finish(self, entry: Entry, place: tuple[int, int]) -> None:
        """Show the answer as it was kept; where the pieces made other blocks than the whole, it is drawn anew."""
        self.revise(entry, place)
        self.ahead.display = False
        text = safe(entry.content)
        if self.body.source != text or not _same(self.body, text):
            await self.body.update(text)
        self.foot.update(self.stamp())
        self.foot.tooltip = self.details()


def _same(body: Markdown, text: str) -> bool:
    """Whether the blocks of `body`, which came piece by piece, begin and end where those of `text` do. A piecewise
    parse may split a list; drawing a long answer anew costs half a second."""
    from markdown_it import MarkdownIt
    from textual.widgets.markdown import MarkdownBlock

    whole = [tuple(token.map) for token in MarkdownIt("gfm-like").parse(text) if token.level == 0 and token.map]
    return whole == [child.source_range for child in body.children if isinstance(child, MarkdownBlock)]


def facts(stamp: Stamp) -> list[str]:
    """Give backend, counts, speed and seed of an answer, each as a few words."""
    found = [stamp.backend] if stamp.backend else []
    if stamp.completion_tokens:
        found.append(_("{count} tokens").format(count=number.count(stamp.completion_tokens)))
    if speed := rate(stamp):
        found.append(_("{speed} tokens/s").format(speed=number.decimal(speed)))
    if stamp.seed is not None and stamp.generation.get("temperature"):
        found.append(_("seed {seed}").format(seed=stamp.seed))
    if stamp.finish_reason == "length":
        found.append(_("cut at max_tokens"))
    return found


def rate(stamp: Stamp) -> float | None:
    """Give tokens a second, None where nothing was measured."""
    return stamp.completion_tokens / stamp.decode_s if stamp.decode_s and stamp.completion_tokens else None
