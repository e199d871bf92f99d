"""Who can answer: the models that are registered."""

from ...core.i18n import _
from ...registry.open import BACKENDS
from ...registry.record import Record
from .. import number
from ..cli.output import size
from ..desk import Desk
from .picker import Item, Picker


class ModelsScreen(Picker):
    """Gives the name of the model chosen; `title` says what for, when it is for one answer only."""

    def __init__(self, desk: Desk, title: str = "") -> None:
        now = desk.record.ref if desk.record else ""
        items = [Item(one.ref, one.ref, _facts(one), _kind(one), one.ref == now) for one in desk.models()[0]]
        if desk.record and now not in {item.id for item in items}:
            items.insert(0, Item(str(desk.record.path), now, str(desk.record.path), _kind(desk.record), True))
        hint = _("Enter lets it answer from the next message on. `vigtui add FILE` brings in another.")
        if title:
            hint = _("Enter lets it answer this once; the answers stay side by side.")
        super().__init__(title or _("Model"), items, hint, _("No model is called so."))


def _kind(record: Record) -> str:
    return " · ".join(filter(None, (record.kind, record.quantization, BACKENDS.get(record.kind, ("",))[0])))


def _facts(record: Record) -> str:
    context = _("{count} tokens of context").format(count=number.count(record.context)) if record.context else ""
    return " · ".join(filter(None, (size(record.size), context, record.licence, record.source)))
