"""Words that can be clicked."""

from textual.content import Content
from textual.style import Style


def link(text: str, action: str, style: str = "") -> Content:
    """Give `text`, safe already, so that a click runs `action` of the widget that shows it."""
    return Content.styled(text, style).stylize(Style.from_meta({"@click": action}))
