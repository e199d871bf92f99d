"""What the app works on, without a widget in it: the open conversation, and the model that answers."""

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from ..backends.base import Backend, Event, Generation, LoadOptions, Stop
from ..chat import formats
from ..chat.formats import Format
from ..chat.prepare import Prepared, Source, prepare
from ..chat.record import Entry
from ..chat.session import Session
from ..chat.store import Store
from ..core.errors import BackendError, CapacityError, NotFoundError, VigtuiError
from ..core.i18n import _
from ..core.progress import Progress, silent
from ..registry import open as opening
from ..registry.hashes import fingerprint
from ..registry.record import Record
from ..registry.store import Registry
from .cli.layer import Layers
from .cli.models import lasting
from .cli.talk import system_from
from .cli.wish import Wish
from .jobs import Jobs
from .pulls import Pulls

Opener = Callable[[Record, LoadOptions, str | None, Progress], Backend]


@dataclass(frozen=True, slots=True)
class Adapter:
    """A LoRA adapter as chosen for a conversation: its name or path, its scale, and whether it is applied."""

    ref: str
    scale: float = 1.0
    on: bool = True


class Desk:
    """A conversation and who answers in it. `load`, `adapt`, `reply` and `count` take their time and may run in any
    thread; the rest answers at once. `opener` is how an engine is opened."""

    def __init__(self, wish: Wish, opener: Opener = opening.open) -> None:
        if wish.offline:
            os.environ["HF_HUB_OFFLINE"] = "1"
        self.wish, self._opener = wish, opener
        self.store = None if wish.no_save else Store()
        self.engine: Backend | None = None
        self.record: Record | None = None
        self.source = Source()
        self.pulls, self.jobs = Pulls(), Jobs()
        self._changing, self._replying = threading.RLock(), threading.Lock()
        self._closing = threading.Event()
        self._host: tuple[Backend | None, Record, Source] | None = None
        self.gone = False
        self.session = self._first()

    def _first(self) -> Session:
        """Give the conversation that the flags ask for."""
        if self.wish.session is None or self.store is None:
            session = Session.new(self.store)
        elif self.wish.session:
            session = Session.open(self.store, self.wish.session)
        else:
            session = Session.last(self.store, hidden=False)
        return self._settled(session)

    def _settled(self, session: Session) -> Session:
        """Give `session` what the flags ask for; it is saved with the conversation, as if chosen in the app."""
        wish = self.wish
        if wish.persona is not None:
            session.set_persona(wish.persona or None)
        if wish.system is not None:
            system = system_from(wish.system)
            session.set_system(system.state, system.text)
        if wish.form is not None:
            session.set_format(wish.form or None)
        if wish.generation.given():
            session.set_generation(wish.generation.over(session.conversation.generation))
        if wish.lora:
            _keep_adapters(session, [Adapter(*opening.scaled(ref)) for ref in wish.lora])
        return session

    def new(self) -> None:
        """Begin a conversation with the model, persona, system message and values of this one."""
        self.gone = False
        self.session = self.session.another()

    def open(self, id: str) -> None:
        """Go on with the conversation `id`. Raises NotFoundError."""
        if self.store is None:
            raise NotFoundError(_("Nothing is kept: vigtui was started with --no-save."))
        self.session, self.gone = Session.open(self.store, id), False

    def rename(self, id: str, title: str) -> None:
        """Give the conversation `id` a title."""
        if id == self.session.id:
            self.session.rename(title)
        elif self.store is not None:
            Session.open(self.store, id).rename(title)

    def delete(self, id: str) -> None:
        """Remove the conversation `id` for good."""
        if self.store is not None:
            self.store.delete(id)
        self.gone = self.gone or id == self.session.id

    def wanted(self) -> list[str | None]:
        """Give the models that should answer, the first that can be loaded being the one; None is the default."""
        session, persona = self.session, self.session.persona
        asked = self.wish.model or os.environ.get("VIGTUI_MODEL")
        if asked and self.record is None:
            return [asked]
        remembered = session.conversation.settings.get("model") or session.conversation.model
        last = self.store.last(hidden=False) if self.store else None
        before = [last.settings.get("model") or last.model] if last else []
        names = [remembered, persona.model if persona else None, *([] if self.record else before)]
        return [*dict.fromkeys(name for name in names if name), None]

    def load(self, name: str | None, progress: Progress = silent, trust: opening.Trust = opening.nobody) -> list[str]:
        """Have the model `name` answer from now on, with the conversation's adapters; give what the user should know.

        `trust` is asked, in this thread, before code that comes with the model runs. When it cannot be loaded, the one
        before stays. Raises NotFoundError, UsageError, FormatError, CapacityError and BackendError.
        """
        record = opening.resolve(name)
        if record == self.record and self.engine is not None and self._host is None:
            return self._adapted(progress)
        source = self._source(record, progress)
        with self._changing:
            engine = self._opened(record, progress, trust)
            for old in (self.engine, self._host[0] if self._host else None):
                if old is not None:
                    old.close()
            self.engine, self.record, self.source, self._host = engine, record, source, None
            self.session.keep(model=lasting(record))
            return self._adapted(progress)

    def visit(self, name: str, progress: Progress = silent, trust: opening.Trust = opening.nobody) -> list[str]:
        """Have the model `name` answer until `leave` brings back the one before; give what the user should know.

        The conversation's adapters are applied where they fit. Raises as `load` does; the one before then stays.
        """
        record = opening.resolve(name)
        if self.record is None or record == self.record:
            return [] if self.engine is not None else self.load(name, progress, trust)
        source = self._source(record, progress)
        with self._changing:
            home, before = self.record, self.source
            engine = self._opened(record, progress, trust)
            self._host = (self.engine, home, before)
            self.engine, self.record, self.source = engine, record, source
        try:
            self._apply(self.adapters(), progress)
        except VigtuiError as error:
            return [str(error)]
        return []

    @property
    def visited(self) -> bool:
        """Whether a model answers that came for one answer only."""
        return self._host is not None

    def leave(self, progress: Progress = silent, trust: opening.Trust = opening.nobody) -> list[str]:
        """Have the model answer again that was there before `visit`. Raises as `load` does."""
        with self._changing:
            if self._host is None:
                return []
            guest, (self.engine, record, self.source) = self.engine, self._host
            self._host, self.record = None, record
            if guest is not None:
                guest.close()
        return [] if self.engine is not None else self.load(lasting(record), progress, trust)

    def _source(self, record: Record, progress: Progress) -> Source:
        backend = opening.backend_for(record, self.wish.backend)
        digest = fingerprint(record, progress) if backend != "echo" and record.files else ""
        return Source(record.ref, digest, record.format, Generation(**record.generation))

    def _opened(self, record: Record, progress: Progress, trust: opening.Trust) -> Backend:
        """Give an engine with `record`; the running one is ended first only when both do not fit the memory."""

        def opened(record: Record) -> Backend:
            return opening.trusting(
                lambda loading: self._opener(record, loading, self.wish.backend, progress),
                record,
                self.wish.loading,
                trust,
            )

        try:
            return opened(record)
        except CapacityError:
            if self.engine is None or self.record is None:
                raise
            self.engine.close()
            self.engine = None
            try:
                return opened(record)
            except VigtuiError:
                self.engine = opened(self.record)
                raise

    def adapters(self) -> list[Adapter]:
        """Give the adapters of the conversation, applied or not."""
        return [Adapter(*values) for values in self.session.conversation.settings.get("adapters", [])]

    def adapt(self, adapters: Sequence[Adapter], progress: Progress = silent) -> None:
        """Apply these adapters from now on and keep them with the conversation.

        Raises what `registry.open.adapter` and the engine raise; those before then stay.
        """
        self._apply(adapters, progress)
        _keep_adapters(self.session, adapters)

    def _apply(self, adapters: Sequence[Adapter], progress: Progress) -> None:
        with self._changing:
            if self.engine is None or self.record is None:
                raise BackendError(_("No model is loaded."))
            active = [one for one in adapters if one.on]
            backend = self.engine.name
            found = [(opening.adapter(one.ref, self.record, progress, backend)[0], one.scale) for one in active]
            if found or self.source.adapters:
                self.engine.adapt(found)
            self.source = replace(self.source, adapters=tuple((one.ref, one.scale) for one in active))

    def choose_adapters(self, adapters: Sequence[Adapter]) -> None:
        """Keep these adapters with the conversation; the next `load` applies them."""
        _keep_adapters(self.session, adapters)

    def _adapted(self, progress: Progress) -> list[str]:
        """Apply the conversation's adapters to the model just loaded; one that does not fit it is switched off."""
        wanted, said = self.adapters(), []
        try:
            self.adapt(wanted, progress)
        except VigtuiError as error:
            said.append(str(error))
            _keep_adapters(self.session, [Adapter(one.ref, one.scale, False) for one in wanted])
        return said

    def reply(self, stop: Stop) -> Iterator[Event]:
        """Give the events of the answer to the last message of the user."""
        engine, memory = self.engine, self.wish.max_memory
        if engine is None:
            raise BackendError(_("No model is loaded."))
        with self._replying:
            yield from self.session.reply(
                engine, None, lambda: stop() or self._closing.is_set(), self.source, max_memory=memory
            )

    @contextmanager
    def alone(self) -> Iterator[tuple[Backend, Stop]]:
        """Give the engine once no answer is on its way and none can begin, and whether the app is being left."""
        with self._replying:
            if self.engine is None:
                raise BackendError(_("No model is loaded."))
            yield self.engine, self._closing.is_set

    def count(self, draft: str, path: Sequence[Entry]) -> Prepared | None:
        """Give exactly what would be sent if `draft` followed `path`; None while no model is loaded."""
        engine, source, session = self.engine, self.source, self.session
        if engine is None or engine.info is None:
            return None
        asked = [*path, Entry("", session.id, None, "user", draft)]
        return prepare(session.conversation, asked, engine, Generation(), source, session.persona, self.wish.max_memory)

    @property
    def alive(self) -> bool:
        """Whether the engine's process runs; one in this process always does."""
        return getattr(self.engine, "pid", 0) is not None

    @property
    def estimating(self) -> bool:
        """Whether what `count` says is an estimate: a server renders the messages and counts their tokens itself."""
        return self.engine is not None and "chat" in self.engine.supports

    @property
    def context(self) -> int:
        """The size of the context window in tokens, 0 while no model is loaded."""
        info = self.engine.info if self.engine else None
        return info.context if info else 0

    def form(self) -> tuple[Format, str] | None:
        """Give the prompt format in force and the reason for it, None while no model is loaded."""
        info = self.engine.info if self.engine else None
        if info is None:
            return None
        return formats.choose(self.source.format, info, self.session.conversation.format)

    def system_text(self) -> str | None:
        """Give the system message that is sent by default, None for none: the persona's, else the format's."""
        persona, chosen = self.session.persona, self.form()
        if persona and persona.system is not None:
            return persona.system
        return chosen[0].system if chosen else None

    def layers(self) -> Layers:
        """Give the generation values by where they come from."""
        layers = Layers()
        layers.put("model", self.source.generation)
        layers.put("persona", self.session.persona.generation if self.session.persona else Generation())
        layers.put("session", self.session.conversation.generation)
        return layers

    def models(self) -> tuple[list[Record], list[Record]]:
        """Give the models and the adapters that are registered."""
        known = Registry().all()
        return [one for one in known if one.kind != "adapter"], [one for one in known if one.kind == "adapter"]

    def close(self) -> None:
        """Stop the answer, if any, wait until it is kept, and end the engine.

        The store's connections close with their threads: closing one that another thread is using kills the process.
        """
        self._closing.set()
        if self._replying.acquire(timeout=3):
            self._replying.release()
        for engine in (self.engine, self._host[0] if self._host else None):
            if engine is not None:
                engine.close()


def _keep_adapters(session: Session, adapters: Sequence[Adapter]) -> None:
    session.keep(adapters=[[one.ref, one.scale, one.on] for one in adapters])
