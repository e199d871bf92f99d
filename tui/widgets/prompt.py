"""Where the user writes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from textual import events
from textual.binding import Binding, BindingType
from textual.message import Message
from textual.widgets import TextArea

from ...core.i18n import _
from ...core.text import safe
from ..key import N_, translate


class Prompt(TextArea):
    """A text of one or more lines: Enter sends it, ↑ before its first line recalls what was sent before."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "submit", N_("Send"), show=False),
        Binding("ctrl+j,shift+enter,alt+enter", "newline", N_("New line"), show=False),
        Binding("escape", "leave", N_("Stop"), show=False),
        Binding("ctrl+up", "screen.focus_transcript", N_("To the messages"), show=False),
    ]

    @dataclass
    class Submitted(Message):
        """The user sends `text`."""

        text: str

    @dataclass
    class Typed(Message):
        """The text has changed."""

        text: str

    @dataclass
    class Turned(Message):
        """The user wants the version before (−1) or after (1) of the last message that has several."""

        step: int

    class Refused(Message):
        """The user wants to send while that is not possible; the text stays."""

    class Left(Message):
        """The user pressed Esc."""

    def __init__(self) -> None:
        super().__init__(
            id="prompt",
            highlight_cursor_line=False,
            tab_behavior="focus",
            placeholder=_("Write a message. Enter sends it, Ctrl+J begins a new line."),
        )
        translate(self)
        self.ready = True
        self._sent: list[str] = []
        self._place = 0
        self._draft = ""

    def remember(self, sent: Sequence[str]) -> None:
        """Take what was sent before, oldest first, for ↑."""
        self._sent = [safe(text) for text in sent]
        self._place = len(self._sent)

    def put(self, text: str) -> None:
        """Show `text` with the cursor at its end."""
        self.text = safe(text)
        self.move_cursor(self.document.end)

    async def _on_key(self, event: events.Key) -> None:
        """Do what a key means at once: a binding waits for the app, and faster keys would overtake it."""
        found = self._bindings.key_to_bindings.get(event.key)
        if event.key == "ctrl+c" and not self.selected_text:
            return  # for the app
        if found:
            event.stop()
            event.prevent_default()
            await self.run_action(found[0].action)
        else:
            await super()._on_key(event)

    async def _on_paste(self, event: events.Paste) -> None:
        event.text = safe(event.text)
        await super()._on_paste(event)

    def on_text_area_changed(self, event: TextArea.Changed) -> None:
        event.stop()
        self.post_message(self.Typed(self.text))

    def action_submit(self) -> None:
        if not self.ready:
            self.post_message(self.Refused())
        elif self.text.strip():
            self.post_message(self.Submitted(self.text))
            self.text = ""

    def action_newline(self) -> None:
        self.insert("\n")

    def action_leave(self) -> None:
        self.post_message(self.Left())

    def action_cursor_up(self, select: bool = False) -> None:
        if select or not self.cursor_at_first_line:
            super().action_cursor_up(select)
        elif self._place > 0:
            self._recall(self._place - 1)

    def action_cursor_down(self, select: bool = False) -> None:
        if select or not self.cursor_at_last_line or self._place >= len(self._sent):
            super().action_cursor_down(select)
        else:
            self._recall(self._place + 1)

    def action_cursor_left(self, select: bool = False) -> None:
        if self.text:
            super().action_cursor_left(select)
        else:
            self.post_message(self.Turned(-1))

    def action_cursor_right(self, select: bool = False) -> None:
        if self.text:
            super().action_cursor_right(select)
        else:
            self.post_message(self.Turned(1))

    def _recall(self, place: int) -> None:
        """Show what was sent at `place`; the place after the last is what is being written."""
        if self._place == len(self._sent):
            self._draft = self.text
        self._place = place
        self.put(self._draft if place == len(self._sent) else self._sent[place])
