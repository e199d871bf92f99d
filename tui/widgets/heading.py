"""The first line: the title of the conversation, and who answers."""

from textual.content import Content
from textual.widgets import Static

from ...core.i18n import _
from ...core.text import line


class Heading(Static):
    """The title; a click renames the conversation."""

    def __init__(self) -> None:
        super().__init__(id="heading")

    def entitle(self, title: str, persona: str = "") -> None:
        """Show the title and the persona."""
        parts: list[str | tuple[str, str]] = [("vigtui", "bold $primary"), "  ", line(title) or _("New conversation")]
        if persona:
            parts += ["  ", (line(persona), "$foreground 60%")]
        self.update(Content.assemble(*parts))

    async def on_click(self) -> None:
        await self.run_action("screen.rename")
