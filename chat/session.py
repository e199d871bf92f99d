"""A conversation: the one owner of its messages, whoever shows them."""

import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from typing import Any

from ..backends.base import Backend, Event, Generation, Stop
from ..core.errors import ContextError, NotFoundError, UsageError, VigtuiError
from ..core.i18n import _
from ..core.text import line
from . import persona as personas
from .answer import Answer
from .formats import System, SystemState
from .persona import Persona
from .prepare import Prepared, Source, prepare
from .record import Conversation, Entry, new_id
from .store import Store
from .tree import Tree


def _never() -> bool:
    return False


class Session:
    """A conversation in `store`, or in memory alone when that is None.

    Nothing is written before the first message. When the store cannot write, the conversation goes on in memory:
    `unsaved` is the error, and the next write tries again. `prepared` is what the last reply sent.
    """

    def __init__(self, store: Store | None, conversation: Conversation, tree: Tree | None = None) -> None:
        self.store, self.conversation = store, conversation
        self.persona: Persona | None = None
        self.prepared: Prepared | None = None
        self.unsaved: VigtuiError | None = None
        self._tree = tree or Tree()
        self._waiting: dict[str, Entry] = {}
        self._notices: list[str] = []
        self._lock = threading.RLock()  # an answer grows in one thread while another renames the conversation
        if conversation.persona:
            self._recall(conversation.persona)

    @classmethod
    def new(
        cls,
        store: Store | None = None,
        *,
        model: str | None = None,
        format: str | None = None,
        system: System | None = None,
        persona: str | None = None,
        generation: Generation | None = None,
        settings: dict[str, Any] | None = None,
        hidden: bool = False,
    ) -> "Session":
        """Begin a conversation; `hidden` marks a one-shot. Raises NotFoundError for an unknown persona."""
        session = cls(
            store,
            Conversation(
                model=model,
                format=format,
                system=system or System(),
                generation=generation or Generation(),
                settings=settings or {},
                hidden=hidden,
            ),
        )
        session.set_persona(persona)
        return session

    def another(self) -> "Session":
        """Begin a conversation with the model, format, system message, persona and values of this one."""
        old = self.conversation
        return Session.new(
            self.store,
            model=old.model,
            format=old.format,
            system=old.system,
            persona=old.persona,
            generation=old.generation,
            settings=dict(old.settings),
        )

    @classmethod
    def open(cls, store: Store, id: str) -> "Session":
        """Go on with the conversation that `id` names or alone begins. Raises NotFoundError or UsageError."""
        conversation = store.get(id)
        return cls(store, conversation, Tree(store.messages(conversation.id), conversation.leaf))

    @classmethod
    def last(cls, store: Store, hidden: bool = True) -> "Session":
        """Go on with the conversation used last; `hidden` counts one-shots too. Raises NotFoundError for none."""
        conversation = store.last(hidden)
        if conversation is None:
            raise NotFoundError(_("There is no conversation to continue yet."), _("Begin one with `vigtui`."))
        return cls.open(store, conversation.id)

    @property
    def id(self) -> str:
        """Eight hexadecimal digits."""
        return self.conversation.id

    @property
    def title(self) -> str:
        """The first words of the user, or what `rename` gave."""
        return self.conversation.title

    def path(self) -> list[Entry]:
        """Give the messages from the first to where the conversation stands."""
        return self._tree.path()

    def entries(self) -> list[Entry]:
        """Give all messages of all branches, in the order they were made."""
        return list(self._tree)

    def has(self, message_id: str) -> bool:
        """Whether the message is in this conversation, on whatever branch."""
        return message_id in self._tree

    def siblings(self, message_id: str) -> list[Entry]:
        """Give all versions of a message, oldest first."""
        return self._tree.siblings(message_id)

    def say(self, text: str) -> Entry:
        """Add a message of the user after the current one and give it."""
        return self._add("user", text, self._tree.leaf)

    def edit(self, message_id: str, text: str) -> Entry:
        """Add another version of a message beside it, go there, and give it; what followed stays with the old one."""
        old = self._tree.get(message_id)
        return self._add(old.role, text, old.parent)

    def _add(self, role: str, text: str, parent: str | None) -> Entry:
        text = text.encode("utf-8", "replace").decode("utf-8")
        entry = Entry(new_id(12), self.id, parent, role, text)
        if not self.conversation.title:
            self.conversation = replace(self.conversation, title=title_of(text))
        self._put(entry)
        return entry

    def regenerate(self, message_id: str | None = None) -> Entry:
        """Go back to the last message of the user, or the last up to `message_id`, and give it, so that `reply` makes
        another answer beside the old.

        Raises UsageError when the user has said nothing yet.
        """
        path = self.path()
        ids = [entry.id for entry in path]
        end = ids.index(message_id) + 1 if message_id in ids else len(path)
        for entry in reversed(path[:end]):
            if entry.role == "user":
                self._go(entry.id)
                return entry
        raise UsageError(_("There is nothing to answer yet."))

    def select(self, message_id: str) -> Entry:
        """Go to a version of a message and to the newest that followed from it; give where the session stands."""
        leaf = self._tree.end_of(message_id)
        self._go(leaf)
        return self._tree.get(leaf)

    def pin(self, message_id: str, pinned: bool = True) -> None:
        """Keep the round of a message in the context for as long as it fits, or no longer."""
        with self._lock:
            entry = replace(self._tree.get(message_id), pinned=pinned)
            self._tree.put(entry)
            self._write(entry)

    def set_system(self, state: SystemState, text: str = "") -> None:
        """Choose the system message: the format's "default", a "text", an "empty" one, or "none"."""
        self._change(system=System(state, text if state == "text" else ""))

    def set_persona(self, name: str | None) -> None:
        """Choose who answers, None for nobody in particular. Raises NotFoundError or FormatError."""
        self.persona = personas.get(name) if name else None
        self._change(persona=name)

    def set_generation(self, generation: Generation) -> None:
        """Choose the generation values of this session; unset ones come from the persona and the model."""
        self._change(generation=generation)

    def set_format(self, format: str | None) -> None:
        """Choose the prompt format, None for the model's."""
        self._change(format=format)

    def keep(self, **settings: Any) -> None:
        """Keep these JSON values with the conversation, beside what is kept already."""
        self._change(settings={**self.conversation.settings, **settings})

    def rename(self, title: str) -> None:
        """Give the conversation a title."""
        self._change(title=line(title)[:200])

    def prepare(
        self,
        engine: Backend,
        generation: Generation | None = None,
        source: Source | None = None,
        *,
        max_memory: int | None = None,
        input: str | None = None,
    ) -> Prepared:
        """Give exactly what `reply` would send, without sending it. Raises as `reply` does."""
        return prepare(
            self.conversation,
            self.path(),
            engine,
            generation or Generation(),
            source or Source(),
            self.persona,
            max_memory,
            input,
        )

    def reply(
        self,
        engine: Backend,
        generation: Generation | None = None,
        stop: Stop = _never,
        source: Source | None = None,
        *,
        max_memory: int | None = None,
        input: str | None = None,
    ) -> Iterator[Event]:
        """Answer the last message of the user: notices and the events of `engine`, then Done.

        The answer is saved as it grows, at its end with its stamp, and as partial or error when it is stopped,
        closed or the engine fails. Raises ContextError when the message alone does not fit (the session then
        stands before it, and the message stays as a branch), FormatError and BackendError.
        """
        source = source or Source()
        asked = self._tree.leaf
        try:
            prepared = self.prepared = self.prepare(engine, generation, source, max_memory=max_memory, input=input)
        except ContextError:
            self._step_back(asked)
            raise
        with self._lock:
            self.conversation = replace(self.conversation, model=source.name or self.conversation.model)
        entry = Entry(new_id(12), self.id, asked, "assistant", "", "partial")
        answer = Answer(entry, prepared, source, engine.name, self._put)
        yield from map(answer.note, self._news(prepared))
        yield from self._stream(engine, prepared, stop, answer, asked)

    def _stream(
        self, engine: Backend, prepared: Prepared, stop: Stop, answer: Answer, asked: str | None
    ) -> Iterator[Event]:
        try:
            with closing(engine.stream(prepared.prompt, prepared.generation, stop)) as events:  # pyright: ignore
                for event in events:
                    yield from answer.take(event)
            yield from answer.end("error", reason="error")  # an engine that ends without Done
        except ContextError:
            answer.discard()
            self._step_back(asked)
            raise
        except VigtuiError as error:
            answer.note(error.message)
            list(answer.end("error", reason="error"))
            raise
        except (GeneratorExit, KeyboardInterrupt):
            list(answer.end("partial", reason="cancelled"))
            raise
        finally:
            list(answer.end("error", reason="error"))

    def _news(self, prepared: Prepared) -> list[str]:
        news = [*self._notices, *prepared.notices]
        self._notices = []
        return news

    def _step_back(self, message_id: str | None) -> None:
        if message_id:
            self._go(self._tree.get(message_id).parent)

    def _go(self, leaf: str | None) -> None:
        with self._lock:
            self._tree.leaf = leaf
            self._write()

    def _put(self, entry: Entry) -> VigtuiError | None:
        with self._lock:
            self._tree.put(entry)
            self._tree.leaf = entry.id
            return self._write(entry)

    def _change(self, **fields: Any) -> None:
        with self._lock:
            self.conversation = replace(self.conversation, **fields)
            self._write()

    def _write(self, *entries: Entry) -> VigtuiError | None:
        """Store the conversation with these messages and those that an earlier failure kept waiting."""
        self.conversation = replace(self.conversation, leaf=self._tree.leaf, updated=time.time())
        self._waiting |= {entry.id: entry for entry in entries}
        if self.store is None or not len(self._tree):
            return None
        try:
            self.store.save(self.conversation, list(self._waiting.values()))
            self._waiting, self.unsaved = {}, None
        except VigtuiError as error:
            self.unsaved = error
        return self.unsaved

    def _recall(self, name: str) -> None:
        try:
            self.persona = personas.get(name)
        except VigtuiError as error:
            self._notices.append(str(error))


def title_of(text: str, size: int = 60) -> str:
    """Give a title of at most `size` characters from the first words of a message."""
    words = line(text)
    if len(words) <= size:
        return words
    cut = words[:size].rsplit(" ", 1)[0] if " " in words[:size] else words[: size - 1]
    return cut.rstrip(" ,;:.") + "…"
