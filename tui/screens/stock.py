"""What can be done with a model of the list: plan, pull, pause, go on, look closer, remove."""

from collections.abc import Callable
from typing import TypeVar

from textual import work
from textual.worker import WorkerCancelled, WorkerFailed

from ...core.errors import VigtuiError
from ...core.i18n import _
from ...core.text import line
from ...registry import default, unfinished
from ...registry import detail as details
from ...registry import remove as removing
from ...registry.open import BACKENDS
from ...registry.order import Order
from ...registry.record import Record
from ...registry.unfinished import Unfinished
from ..cli.output import size
from ..desk import Desk
from ..pulls import again
from ..shelf import Row
from .confirm import Confirm
from .details import DetailScreen
from .dialog import Dialog
from .drain import drain
from .plan import Forecast, PlanScreen, forecast

T = TypeVar("T")


class Stock(Dialog[str]):
    """Does it; what takes its time runs in threads, pulls in one that outlives the screen."""

    def __init__(self, desk: Desk) -> None:
        super().__init__("library")
        self.desk, self.pulls = desk, desk.pulls

    def relist(self) -> object:
        """Read again what is here, and show it."""
        raise NotImplementedError

    def reach(self, key: str) -> None:
        """Read again what is here, and go to the row `key`."""
        raise NotImplementedError

    def note(self, text: str) -> None:
        """Show what is being done, or nothing."""
        raise NotImplementedError

    async def told(self, text: str, what: Callable[[], T]) -> T | None:
        """Give what `what` gives in a thread, with `text` shown meanwhile; None when it fails, which is told."""
        self.note(text)
        try:
            given = await self.run_worker(what, thread=True, group="ask", exit_on_error=False).wait()
        except WorkerFailed as failed:
            self.complain(failed.error)
            given = None
        except WorkerCancelled:  # something else was asked meanwhile, or the screen is left
            return None
        self.note("")
        return given

    def complain(self, error: BaseException) -> None:
        """Tell what went wrong."""
        text = str(error) if isinstance(error, VigtuiError) else f"{type(error).__name__}: {error}"
        self.notify(line(text), severity="error", timeout=10, markup=False)

    @work(exclusive=True, group="plan")
    async def plan(self, text: str) -> None:
        """Show what pulling `text` takes, and pull it when that is wanted."""
        known = await self.told(_("Asking what {name} takes …").format(name=line(text)), lambda: forecast(text))
        if known is None:
            return
        if not known.order.files:
            return self.start(known.order)
        label = await self.app.push_screen_wait(PlanScreen(known))
        if label is not None and (known := await self._built(known, label)) and await self._agreed(known):
            self.start(known.order)

    async def _built(self, known: Forecast, label: str) -> Forecast | None:
        """Give the forecast for the build `label` of the same repository."""
        if not label or (known.chosen and known.chosen.label == label):
            return known
        order = known.order
        revision = order.record.made_with.get("revision", "main")
        at = "" if revision == "main" else f"@{revision}"
        text = f"{order.repository}{at}:{label}"
        return await self.told(_("Asking what {name} takes …").format(name=line(text)), lambda: forecast(text))

    async def _agreed(self, known: Forecast) -> bool:
        if not known.trouble:
            return True
        question = line(known.trouble + " " + _("Fetch it all the same?"))
        return bool(await self.app.push_screen_wait(Confirm(question, _("Pull"))))

    def start(self, order: Order) -> None:
        """Fetch `order`, now or after the pulls before it."""
        if self.pulls.put(order):
            drain(self.app, self.pulls, "pull", _("{name} is here."))
        self.reach(f"pull {order.record.ref}")

    @work(exclusive=True, group="plan")
    async def go_on(self, kept: Unfinished) -> None:
        """Go on with a pull that was interrupted."""
        order = await self.told(_("Asking the server …"), lambda: again(kept))
        if order is not None:
            self.start(order)

    @work(exclusive=True, group="plan")
    async def show_model(self, record: Record) -> None:
        """Show everything that is known of a model, and do what is wanted then."""
        known = await self.told(_("Reading {name} …").format(name=record.ref), lambda: details.detail(record))
        if known is None:
            return
        wanted = await self.app.push_screen_wait(DetailScreen(known, record.kind in BACKENDS))
        if wanted == "answer":
            self.dismiss(record.ref)
        elif wanted == "remove":
            await self._remove(record)

    @work(exclusive=True, group="plan")
    async def remove_row(self, row: Row) -> None:
        """Remove a model, or give a pull up, after a question."""
        if isinstance(row.held, Record):
            await self._remove(row.held)
        elif row.place == "pull":
            await self._give_up(row)

    async def _remove(self, record: Record) -> None:
        removal = await self.told("", lambda: removing.plan(record))
        if removal is None:
            return
        said = [_("Remove {name} and free {size}?").format(name=record.ref, size=size(removal.freed))]
        if self.desk.record and self.desk.record.ref == record.ref:
            said.append(_("It is the model that answers in this conversation."))
        said += [_("{path} stays: {reason}.").format(path=path, reason=reason) for path, reason in removal.kept]
        if await self.app.push_screen_wait(Confirm("\n".join(map(line, said)), _("Remove"))):
            done = await self.told("", lambda: _removed(record))
            if done is not None:
                text = _("{name} is gone; {size} are freed.").format(name=record.ref, size=size(done.freed))
                self.notify(line(text), markup=False)
            self.relist()

    async def _give_up(self, row: Row) -> None:
        kept = row.held if isinstance(row.held, Unfinished) else None
        done = kept.done if kept else 0
        question = _("Give up the pull of {name} and delete the {size} that have come?")
        if await self.app.push_screen_wait(Confirm(line(question.format(name=row.ref, size=size(done))), _("Delete"))):
            live = self.pulls.of(row.ref)
            if live is not None:
                await self.told("", lambda: self.pulls.give_up(live))
            elif kept is not None:
                await self.told("", lambda: unfinished.discard(kept))
            self.relist()


def _removed(record: Record) -> removing.Removal:
    done = removing.remove(record)
    default.forget(record.ref)
    return done
