"""A conversation with its model loaded: what one-shots and the plain chat share."""

import os
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from typing import Any

from ...backends.base import Event, Generation, Stop
from ...chat import formats
from ...chat.formats import Format, System
from ...chat.session import Session
from ...chat.store import Store
from ...core.errors import NotFoundError, VigtuiError
from ...core.i18n import _
from ...registry import open as opening
from ...registry.record import Record
from .layer import Layers
from .loading import Adapter, Model, adapters_of, load
from .models import lasting
from .result import Result
from .wish import Wish


class Talk:
    """A session, the model that answers in it, and where each generation value comes from.

    `notices` is what the person should know before the first answer; `result` is the last answer; `trust` is asked
    before code that comes with a model runs.
    """

    def __init__(self, wish: Wish, hidden: bool = False, trust: opening.Trust = opening.nobody) -> None:
        if wish.offline:
            os.environ["HF_HUB_OFFLINE"] = "1"
        self.wish, self.layers, self.result, self._trust = wish, Layers(), Result(), trust
        self.notices: list[str] = []
        self.store = None if wish.no_save and wish.session is None else Store()
        self.session = self._session(hidden)
        self._settle()
        self._use(self._first())

    def _session(self, hidden: bool) -> Session:
        if self.wish.session is None or self.store is None:
            return Session.new(self.store, hidden=hidden)
        last = self.store.last()
        if last is None:
            raise NotFoundError(_("There is no conversation to go on with."), _("Begin one without --continue."))
        session = Session.open(self.store, self.wish.session or last.id)
        session.conversation = replace(session.conversation, hidden=session.conversation.hidden and hidden)
        if self.wish.no_save:
            self.store = session.store = None
        return session

    def _settle(self) -> None:
        """Give the session the system message, the persona and the format that the flags ask for."""
        wish, session = self.wish, self.session
        if wish.persona is not None:
            session.set_persona(wish.persona or None)
        if wish.system is not None:
            self.change_system(system_from(wish.system))
        if wish.form is not None:
            session.set_format(wish.form or None)
        self.layers.put("persona", session.persona.generation if session.persona else Generation())
        self.layers.put("session", session.conversation.generation)
        self.layers.put("flag", wish.generation)

    def _first(self) -> Model:
        """Load the model, with the adapters that the flags name, else with those of the conversation."""
        record = self._wanted()
        if self.wish.lora:
            return self._load(record, adapters_of(self.wish.lora))
        kept = self.session.conversation.settings.get("adapters", [])
        adapters = [Adapter(ref, scale) for ref, scale, on in kept if on]
        try:
            return self._load(record, adapters)
        except VigtuiError as error:
            if not adapters:
                raise
            self.notices.append(error.message + " " + _("The adapters of this conversation are off."))
            return self._load(record)

    def _load(self, record: Record, adapters: Sequence[Adapter] = ()) -> Model:
        return load(record, self.wish, adapters, self._trust)

    def _wanted(self) -> Record:
        """Give the model that the flags, the conversation or the persona ask for, else the default one."""
        if asked := self.wish.model or os.environ.get("VIGTUI_MODEL"):
            return opening.resolve(asked)
        conversation, persona = self.session.conversation, self.session.persona
        remembered = conversation.settings.get("model") or conversation.model
        for name in (remembered, persona.model if persona else None):
            try:
                if name:
                    return opening.resolve(name)
            except VigtuiError as error:
                self.notices.append(error.message + " " + _("The default model answers instead."))
        return opening.resolve(None)

    def _use(self, model: Model) -> None:
        self.model = model
        self.form, self.reason = self._format(model)
        self.layers.put("model", model.source.generation)
        adapters = [[one.ref, one.scale, True] for one in model.adapters]
        self.session.keep(model=lasting(model.record), adapters=adapters)

    def _format(self, model: Model) -> tuple[Format, str]:
        try:
            return formats.choose(model.record.format, model.info, self.session.conversation.format)
        except BaseException:
            model.engine.close()
            raise

    def reply(self, text: str, stop: Stop) -> Iterator[Event]:
        """Say `text` and give the events of the answer; `result` grows with them."""
        self.result = result = Result()
        entry = self.session.say(text)
        generation = self.layers.values["set"].over(self.layers.values["flag"])
        model, memory = self.model, self.wish.max_memory
        events = self.session.reply(model.engine, generation, stop, model.source, max_memory=memory)
        try:
            with closing(events):  # pyright: ignore[reportArgumentType]
                for event in events:
                    result.take(event)
                    yield event
        finally:
            last = self.session.path()[-1:]
            if last and last[0].parent == entry.id and last[0].stamp:
                result.stamp = last[0].stamp

    def summary(self) -> dict[str, Any]:
        """Give the object that `--json` prints."""
        source, found = self.model.source, self.result.table(self.model.load_s)
        if self.result.estimated(self._remote):
            count = found["usage"]["prompt_tokens"]
            text = _("The server did not count the tokens of the prompt; ≈ {count} is an estimate.")
            found["notices"] = [*found["notices"], text.format(count=count)]
        model = {"name": source.name, "sha256": source.sha256, "backend": self.model.info.backend}
        return {
            "text": found.pop("text"),
            "finish_reason": found.pop("finish_reason"),
            "model": {**model, "format": self.form.id},
            **found,
            "notices": [*self.notices, *found["notices"]],
            "session": None if self.store is None else self.session.id,
        }

    def statistics(self) -> str:
        """Give counts and times of the last answer on one line."""
        return self.result.statistics(self.model.load_s, self._remote)

    @property
    def _remote(self) -> bool:
        return "chat" in self.model.engine.supports

    def label(self) -> str:
        """Give who answers: model, backend and prompt format."""
        return f"{self.model.source.name} · {self.model.info.backend} · {self.form.id}"

    def new(self) -> None:
        """Begin a new conversation with the same model, persona, system message and values."""
        self.session = self.session.another()

    def switch(self, name: str) -> None:
        """Let another model answer from now on, without adapters; when it cannot be loaded, the old one stays."""
        record, old = opening.resolve(name), self.model
        opening.backend_for(record, self.wish.backend)
        old.engine.close()  # before the other is loaded: two may not fit the memory
        try:
            self._use(self._load(record))
        except BaseException:
            self._use(self._load(old.record, old.adapters))
            raise

    def set(self, name: str, text: str) -> None:
        """Take a generation value as typed after `/set`, and keep it with the conversation."""
        self.layers.set(name, text)
        self.session.set_generation(self.layers.kept())

    def change_system(self, system: System) -> None:
        """Let `system` be the system message from now on."""
        self.session.set_system(system.state, system.text)

    def system_text(self) -> str | None:
        """Give the system message that is sent, None for none."""
        system, persona = self.session.conversation.system, self.session.persona
        if system.state == "default" and persona and persona.system is not None:
            return persona.system
        return formats.system_of(self.form, system)

    def close(self) -> None:
        """End the engine and close the store."""
        self.model.engine.close()
        if self.store is not None:
            self.store.close()


@contextmanager
def opened(wish: Wish, hidden: bool = False, trust: opening.Trust = opening.nobody) -> Iterator[Talk]:
    """Give the Talk that `wish` asks for, and end its engine afterwards; `hidden` marks a one-shot."""
    talk = Talk(wish, hidden, trust)
    try:
        yield talk
    finally:
        talk.close()


def system_from(text: str) -> System:
    """Give the system message that `--system` and `/system` mean: default, none, an empty one, or the text."""
    states = {"default": System("default"), "none": System("none"), "": System("empty"), '""': System("empty")}
    return states.get(text, System("text", text))
