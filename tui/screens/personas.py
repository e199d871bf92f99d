"""Who answers in the conversation: a system message, examples and values by name."""

from ...chat import persona
from ...chat.persona import Persona
from ...core.i18n import _
from ..desk import Desk
from .picker import Item, Picker


class PersonasScreen(Picker):
    """Gives the name of the persona chosen, "" for none."""

    def __init__(self, desk: Desk) -> None:
        chosen = desk.session.conversation.persona
        good, bad = persona.everything()
        items = [Item("", _("nobody in particular"), _("the format's own system message"), chosen=not chosen)]
        items += [Item(one.name, one.name, one.description, _note(one), one.name == chosen) for one in good]
        self.bad = [error.message for error in bad]
        hint = _("Enter lets it speak from the next message on. Your own lie in config/personas.")
        super().__init__(_("Persona"), items, hint, _("No persona is called so."))

    def on_mount(self) -> None:
        for sentence in self.bad:
            self.notify(sentence, severity="warning", markup=False)


def _note(one: Persona) -> str:
    values = [f"{name} {value}" for name, value in one.generation.given().items()]
    return " · ".join([one.language, *values])
