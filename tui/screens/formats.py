"""How messages are written for the model."""

from ...chat import formats
from ...core.errors import VigtuiError
from ...core.i18n import _
from ..desk import Desk
from .picker import Item, Picker


class FormatsScreen(Picker):
    """Gives the id of the prompt format chosen, "" for the model's."""

    def __init__(self, desk: Desk) -> None:
        chosen = desk.session.conversation.format
        items = [Item("", _("the model's"), _automatic(desk), chosen=not chosen)]
        if desk.engine and desk.engine.info and desk.engine.info.chat_template:
            items.append(
                Item(formats.OWN, formats.OWN, _("the model's own chat template"), chosen=chosen == formats.OWN)
            )
        items += [Item(one.id, one.id, one.description, chosen=one.id == chosen) for one in formats.everything()[0]]
        super().__init__(_("Prompt format"), items, empty=_("No format is called so."))


def _automatic(desk: Desk) -> str:
    info = desk.engine.info if desk.engine else None
    if info is None:
        return ""
    try:
        form, reason = formats.choose(desk.source.format, info)
    except VigtuiError as error:
        return error.message
    return f"{form.id}: {reason}"
