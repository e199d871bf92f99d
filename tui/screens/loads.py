"""A screen over a Desk whose model is loaded in the background."""

import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from textual import on, work
from textual.message import Message
from textual.screen import Screen
from textual.worker import get_current_worker

from ...core.errors import VigtuiError
from ...core.i18n import _
from ...core.progress import Progress
from ...core.text import line
from ...registry.open import Trust
from ...registry.record import Record
from ..cli.terminal import question
from ..desk import Desk
from ..widgets.status import Status


class Stopped(Exception):
    """The user does not want the load any more."""


class Loads(Screen[None]):
    """Loads models, and says how far it is and what went wrong. `waiting` is whether a message waits for a model."""

    @dataclass
    class Loading(Message):
        """A load has come this far; `total` 0 when nobody knows."""

        stage: str
        done: int
        total: int

        def can_replace(self, message: Message) -> bool:
            return isinstance(message, Loads.Loading)

    @dataclass
    class Loaded(Message):
        """The load that `halt` stops has ended, with `error` or with what the user should know."""

        halt: threading.Event
        said: list[str] = field(default_factory=list)
        error: Exception | None = None

    @dataclass
    class Doubted(Message):
        """A load waits for whether the code that comes with `record` may run."""

        record: Record
        answers: "queue.SimpleQueue[bool]"

    def __init__(self, desk: Desk) -> None:
        super().__init__()
        self.desk = desk
        self.status = Status()
        self.waiting = False
        self.load_activity = ""
        self._load_halt: threading.Event | None = None

    def on_unmount(self) -> None:
        self.stop_load()

    def answer_waiting(self) -> object:
        """Answer the message that waited for a model."""
        raise NotImplementedError

    def load_failed(self) -> object:
        """Do without the model that could not be loaded."""
        raise NotImplementedError

    def recount(self, pause: float = 0.0) -> None:
        """Count what would be sent."""
        raise NotImplementedError

    @contextmanager
    def told(self) -> Iterator[None]:
        """Tell the user what goes wrong inside, and go on."""
        try:
            yield
        except VigtuiError as error:
            self.complain(error)

    def complain(self, error: Exception) -> None:
        """Show an error: its sentence, and the next step."""
        if isinstance(error, VigtuiError):
            title, text = error.message, error.hint
        else:
            title, text = _("Unexpected error"), f"{type(error).__name__}: {error}"
        whole = line(f"{title} {text}")
        self.notify(whole, severity="error", timeout=10, markup=False)

    @property
    def loading_now(self) -> bool:
        """Whether a model is being loaded."""
        return self._load_halt is not None

    def start_load(self, names: list[str | None]) -> None:
        """Load the first of `names` that can be loaded; the screen goes on meanwhile."""
        self._start(lambda progress, trust: self._load_first(names, progress, trust))

    def start_visit(self, name: str) -> None:
        """Load `name` for one answer; the screen goes on meanwhile."""
        self._start(lambda progress, trust: self.desk.visit(name, progress, trust))

    def end_visit(self) -> None:
        """Bring back the model that was there before the visit."""
        self._start(self.desk.leave)

    def _start(self, work: Callable[[Progress, Trust], list[str]]) -> None:
        self.stop_load()
        self._load_halt = threading.Event()
        self._show_load(_("loading"))
        self.refresh_bindings()
        self.load(work, self._load_halt)

    def stop_load(self) -> None:
        """Give up the load that runs, if any."""
        if self._load_halt is not None:
            self._load_halt.set()

    @work(thread=True, group="load", exit_on_error=False)
    def load(self, work: Callable[[Progress, Trust], list[str]], halt: threading.Event) -> None:
        try:
            self.post_message(self.Loaded(halt, work(self._meter(halt), self._trust(halt))))
        except Exception as error:  # the edge: whatever happened becomes a sentence
            self.post_message(self.Loaded(halt, error=error))

    def _load_first(self, names: list[str | None], progress: Progress, trust: Trust) -> list[str]:
        said: list[str] = []
        for name in names[:-1]:
            try:
                return said + self.desk.load(name, progress, trust)
            except VigtuiError as error:
                instead = _("Another model answers instead.")
                said.append(f"{error.message} {instead}")
        return said + self.desk.load(names[-1], progress, trust)

    def _meter(self, halt: threading.Event) -> Progress:
        worker = get_current_worker()

        def progress(stage: str, done: int, total: int) -> None:
            if halt.is_set() or worker.is_cancelled:
                raise Stopped
            self.post_message(self.Loading(stage, done, total))

        return progress

    def _trust(self, halt: threading.Event) -> Trust:
        """Give what asks the user, in the thread of a load, and waits for the answer."""
        worker = get_current_worker()

        def trust(record: Record) -> bool:
            answers: queue.SimpleQueue[bool] = queue.SimpleQueue()
            self.post_message(self.Doubted(record, answers))
            while not (halt.is_set() or worker.is_cancelled):
                with suppress(queue.Empty):
                    return answers.get(timeout=0.1)
            raise Stopped

        return trust

    @on(Doubted)
    def ask_trust(self, event: Doubted) -> None:
        from .confirm import Confirm

        self.app.push_screen(Confirm(question(event.record), _("Run it")), lambda yes: event.answers.put(bool(yes)))

    @on(Loading)
    def show_loading(self, event: Loading) -> None:
        if self.loading_now:
            share = f" {100 * event.done // event.total} %" if event.total else ""
            self._show_load(_("loading") + share)

    @on(Loaded)
    def loaded(self, event: Loaded) -> None:
        if event.halt is not self._load_halt:
            return
        self._load_halt = None
        self._show_load("")
        for sentence in event.said:
            self.notify(line(sentence), severity="warning", timeout=8, markup=False)
        if event.error is not None and not isinstance(event.error, Stopped):
            self.complain(event.error)
        self.show_model()
        self.refresh_bindings()
        self.recount()
        if event.error is not None:
            self.load_failed()
        elif self.waiting and self.desk.engine is not None:
            self.answer_waiting()
        self.waiting = False

    def _show_load(self, text: str) -> None:
        self.load_activity = text
        self.status.show(activity=text)

    def show_model(self) -> None:
        """Show who answers, in which format."""
        desk, status = self.desk, self.status
        try:
            chosen = desk.form()
        except VigtuiError as error:
            chosen = None
            self.complain(error)
        backend = desk.engine.name if desk.engine else ""
        form = chosen[0].id if chosen else ""
        about, context = desk.estimating, desk.context
        status.show(model=desk.source.name, backend=backend, format=form, context=context, about=about)
