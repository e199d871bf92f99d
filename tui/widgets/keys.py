"""The last line: as many keys as fit, the most needed first."""

from textual import events
from textual.app import ComposeResult
from textual.widgets import Footer
from textual.widgets._footer import FooterKey

RANK = (
    *("stop", "command_palette", "help", "edit", "again", "copy", "version(-1)", "version(1)", "screen.focus_prompt"),
    *("new", "chats", "models", "regenerate", "edit_last", "copy_answer", "generation"),
)
"""Actions, the most needed first; the others come after, in their own order."""


class Keys(Footer):
    """A footer in which no key is cut: those that do not fit are in the palette and the help."""

    def __init__(self) -> None:
        super().__init__(compact=True, show_command_palette=False)

    def compose(self) -> ComposeResult:
        keys = [key for key in super().compose() if isinstance(key, FooterKey)]
        by_rank = sorted(keys, key=lambda key: RANK.index(key.action) if key.action in RANK else len(RANK))
        room, chosen = self.size.width or self.app.size.width, set[FooterKey]()
        for key in by_rank:
            room -= len(key.key_display) + 1 + len(key.description) + 1
            if room >= -1:
                chosen.add(key)
        yield from (key for key in keys if key in chosen)

    async def on_resize(self, event: events.Resize) -> None:
        await self.recompose()
