"""Every key, by where it works."""

from collections.abc import Iterable
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.dom import DOMNode
from textual.screen import Screen
from textual.widgets import Static

from ...core.i18n import _
from ..key import N_
from ..widgets.prompt import Prompt
from ..widgets.turn import Question
from .dialog import Dialog


class HelpScreen(Dialog[None]):
    """Lists the keys of the app, of the conversation, of the prompt and of a message."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("q,enter", "cancel", N_("Back"))]

    def __init__(self, below: Screen[object]) -> None:
        super().__init__("help")
        self.below = below

    def compose(self) -> ComposeResult:
        with VerticalScroll(classes="box") as box:
            box.border_title = _("Keys")
            yield Static(self.text())

    def text(self) -> Content:
        """Give the keys in columns, under the names of their places."""
        places: list[tuple[str, DOMNode]] = [(_("Anywhere"), self.app), (_("Here"), self.below)]
        places += [(_("In the prompt"), prompt) for prompt in self.below.query(Prompt)]
        places.append((_("On a message (Ctrl+↑ or a click goes there)"), Question()))
        return Content("\n\n").join(self._place(title, node) for title, node in places)

    def _place(self, title: str, node: DOMNode) -> Content:
        rows = [Content.assemble(f"  {keys:<26}", (text, "$foreground 60%")) for text, keys in self._keys(node)]
        return Content("\n").join([Content.styled(title, "bold $text-primary"), *rows])

    def _keys(self, node: DOMNode) -> Iterable[tuple[str, str]]:
        ours = {binding.action for one in _ours(type(node)) for binding in Binding.make_bindings(one.BINDINGS)}
        found: dict[str, list[str]] = {}
        for _key, binding in node._bindings:
            if binding.description and binding.action in ours:
                found.setdefault(binding.tooltip or binding.description, []).append(self.app.get_key_display(binding))
        return [(text, "  ".join(dict.fromkeys(keys))) for text, keys in found.items()]


def _ours(kind: type) -> list[type[DOMNode]]:
    """Give the classes of vigtui behind `kind`: what Textual brings along is known to those who edit texts."""
    package = __name__.rpartition(".screens.")[0]
    return [one for one in kind.__mro__ if one.__module__.startswith(package) and "BINDINGS" in vars(one)]
