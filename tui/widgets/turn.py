"""One message on the screen: who said it, what, and what can be done with it."""

from dataclasses import dataclass
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalGroup
from textual.content import Content
from textual.message import Message
from textual.widgets import Static

from ...chat.record import Entry
from ...core.i18n import _
from ...core.text import safe
from ..key import N_, translate
from ..link import link


class Head(Static):
    """The line above a message; what is clicked in it is done by the message."""

    async def action_turn(self, action: str) -> None:
        if self.parent is not None:
            await self.parent.run_action(action)  # pyright: ignore[reportAttributeAccessIssue]


class Turn(VerticalGroup, can_focus=True):
    """A message of the conversation. `place` is its position among its versions and their number."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "move(-1)", N_("Message before"), show=False),
        Binding("down,j", "move(1)", N_("Message after"), show=False),
        Binding("left", "version(-1)", N_("Before"), tooltip=N_("Version before")),
        Binding("right", "version(1)", N_("After"), tooltip=N_("Version after")),
        Binding("e,enter", "edit", N_("Edit")),
        Binding("r", "again", N_("Again")),
        Binding("c,y", "copy", N_("Copy")),
        Binding("p", "pin", N_("Pin"), tooltip=N_("Keep this message in the context")),
        *(Binding(str(n), f"block({n})", N_("Copy code block"), show=False) for n in range(1, 10)),
        Binding("escape", "screen.focus_prompt", N_("Back")),
    ]

    @dataclass
    class Wanted(Message):
        """The user wants something done with the message: "edit", "again", "elsewhere", "beams", "copy", "pin",
        "block", "version", "move"; `value` is the number of the block or the step."""

        turn: "Turn"
        what: str
        value: int = 0

    LINKS: ClassVar[tuple[tuple[str, str], ...]] = ()

    def __init__(self, entry: Entry | None = None, place: tuple[int, int] = (1, 1)) -> None:
        super().__init__()
        translate(self)
        self.entry, self.place = entry, place

    def compose(self) -> ComposeResult:
        yield Head(self.head(), classes="head")
        yield from self.compose_body()

    def compose_body(self) -> ComposeResult:
        yield Static(safe(self.entry.content if self.entry else ""), markup=False, classes="body")

    def speaker(self) -> str:
        """Give who says it, on one line and safe."""
        return _("You")

    def head(self) -> Content:
        """Give the line above the text: who, which version, and what can be clicked."""
        parts = [Content.styled(self.speaker(), "bold")]
        if self.entry and self.entry.pinned:
            parts.append(Content.styled(_("pinned"), "$text-accent"))
        if self.place[1] > 1:
            at, of = self.place
            before, after = link("‹", "turn('version(-1)')"), link("›", "turn('version(1)')")
            parts.append(Content.assemble(before, f" {at}/{of} ", after))
        if self.entry:
            parts += [link(_(text), f"turn('{action}')", "$foreground 60%") for action, text in self.LINKS]
        return Content("  ").join(parts)

    def revise(self, entry: Entry | None = None, place: tuple[int, int] | None = None) -> None:
        """Show what has changed about the message."""
        self.entry, self.place = entry or self.entry, place or self.place
        for head in self.query(Head):
            head.update(self.head())

    def action_move(self, step: int) -> None:
        self.post_message(self.Wanted(self, "move", step))

    def action_version(self, step: int) -> None:
        self.post_message(self.Wanted(self, "version", step))

    def action_edit(self) -> None:
        self.post_message(self.Wanted(self, "edit"))

    def action_again(self) -> None:
        self.post_message(self.Wanted(self, "again"))

    def action_elsewhere(self) -> None:
        self.post_message(self.Wanted(self, "elsewhere"))

    def action_beams(self) -> None:
        self.post_message(self.Wanted(self, "beams"))

    def action_copy(self) -> None:
        self.post_message(self.Wanted(self, "copy"))

    def action_pin(self) -> None:
        self.post_message(self.Wanted(self, "pin"))

    def action_block(self, number: int) -> None:
        self.post_message(self.Wanted(self, "block", number))


class Question(Turn):
    """What the user said."""

    LINKS = (("edit", N_("edit")), ("copy", N_("copy")))
