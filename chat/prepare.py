"""From a conversation to what an engine is given: persona, format, window and stops put together."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from ..backends.base import Backend, Generation, Message, ModelInfo, Prompt
from ..core.errors import BackendError, ContextError
from ..core.i18n import _
from . import formats, window
from .formats import Format, System
from .persona import Persona
from .record import Conversation, Entry
from .render import folds_system


@dataclass(frozen=True, slots=True)
class Source:
    """The model that answers: its name and file hash, what its record says, and the adapters (name, scale)."""

    name: str = ""
    sha256: str = ""
    format: str | None = None
    generation: Generation = field(default_factory=Generation)
    adapters: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Prepared:
    """A prompt ready to be sent: its size and the limit in tokens, and the ids of the messages that were left out of it
    and of those that stand in it in part."""

    prompt: Prompt
    tokens: int
    limit: int
    form: Format
    reason: str
    generation: Generation
    dropped: tuple[str, ...] = ()
    shortened: tuple[str, ...] = ()
    notices: tuple[str, ...] = ()


def prepare(
    conversation: Conversation,
    path: Sequence[Entry],
    engine: Backend,
    generation: Generation,
    source: Source,
    persona: Persona | None = None,
    max_memory: int | None = None,
    input: str | None = None,
) -> Prepared:
    """Give what to send so that `engine` answers `path`, which ends with the user.

    Generation values: `generation`, over the session's, the persona's and the record's. Raises ContextError,
    FormatError, NotFoundError, and BackendError when no model is loaded.
    """
    info = engine.info
    if info is None:
        raise BackendError(_("No model is loaded."))
    form, reason = formats.choose(source.format, info, conversation.format)
    for below in (conversation.generation, persona.generation if persona else Generation(), source.generation):
        generation = generation.over(below)
    limit = window.budget(info.context, generation.max_tokens)
    fitted, owners, notices = _fit(conversation, path, engine, info, form, limit, persona, max_memory, input)
    dropped, shortened = (tuple(id for i in part for id in owners[i]) for part in (fitted.dropped, fitted.shortened))
    notices += lost(len(dropped), len(shortened))
    generation = stopping(generation, form, engine, info)
    return Prepared(fitted.prompt, fitted.tokens, limit, form, reason, generation, dropped, shortened, tuple(notices))


def _fit(
    conversation: Conversation,
    path: Sequence[Entry],
    engine: Backend,
    info: ModelInfo,
    form: Format,
    limit: int,
    persona: Persona | None,
    max_memory: int | None,
    input: str | None,
) -> tuple[window.Fitted, list[tuple[str, ...]], list[str]]:
    """Give the window, the ids behind each message put into it, and what the user should know."""
    system = _system(conversation, persona)
    turns, owners = _turns(path)
    stays = {entry.id for entry in path if entry.pinned}
    pinned = {i for i, ids in enumerate(owners) if not stays.isdisjoint(ids)}
    notices = _folding(form, info, system, path)

    def attempt(examples: tuple[Message, ...]) -> tuple[window.Fitted, list[tuple[str, ...]]]:
        size = len(examples)
        stay = {*range(size), *(i + size for i in pinned)}
        fitted = window.fit(
            form,
            [*examples, *turns],
            info,
            lambda prompt: len(engine.tokenize(prompt)),
            limit,
            max_memory,
            stay,
            system=system,
            input=input,
            about="chat" in engine.supports,
        )
        return fitted, [()] * size + owners

    examples = persona.examples if persona else ()
    try:
        return *attempt(examples), notices
    except ContextError:
        if not examples:
            raise
        notices.append(_("The persona's examples do not fit the context and were left out."))
        return *attempt(()), notices


def _system(conversation: Conversation, persona: Persona | None) -> System:
    if conversation.system.state == "default" and persona and persona.system is not None:
        return System("text", persona.system)
    return conversation.system


def _turns(path: Sequence[Entry]) -> tuple[list[Message], list[tuple[str, ...]]]:
    """Give the messages to render and the ids behind each.

    An answer without text was never said. Messages that then follow each other from the same side become one,
    with a blank line between: templates want the two sides to alternate.
    """
    turns: list[Message] = []
    owners: list[tuple[str, ...]] = []
    for entry in path:
        if entry.role == "assistant" and not entry.content:
            continue
        if turns and turns[-1].role == entry.role:
            turns[-1] = replace(turns[-1], content=f"{turns[-1].content}\n\n{entry.content}")
            owners[-1] = (*owners[-1], entry.id)
        else:
            turns.append(Message(entry.role, entry.content))
            owners.append((entry.id,))
    return turns, owners


def _folding(form: Format, info: ModelInfo, system: System, path: Sequence[Entry]) -> list[str]:
    first = not any(entry.role == "assistant" and entry.content for entry in path)
    if first and formats.system_of(form, system) and folds_system(form, info):
        return [_("The model's template has no system message: the text stands before the first message instead.")]
    return []


def lost(dropped: int, shortened: int) -> list[str]:
    """Give the sentences for so many messages left out of a prompt and so many shortened in it."""
    said = []
    if dropped == 1:
        said.append(_("The oldest message no longer fits the context; the model does not see it."))
    elif dropped:
        text = _("The {count} oldest messages no longer fit the context; the model does not see them.")
        said.append(text.format(count=dropped))
    if shortened == 1:
        said.append(_("One older message is shortened to fit the context."))
    elif shortened:
        said.append(_("{count} older messages are shortened to fit the context.").format(count=shortened))
    return said


def stopping(generation: Generation, form: Format, engine: Backend, info: ModelInfo) -> Generation:
    """Give `generation` with the format's stops joined to the user's. A stop string that is a special token never
    shows up as text: its id must stop too."""
    stop = formats.stops(form, generation.stop)
    ids = list(generation.stop_token_ids or ())
    if "stop_token_ids" in engine.supports:
        ids += form.stop_token_ids
        ids += (engine.tokenize(Prompt(((text, True),)))[-1] for text in stop if text in info.specials)
    return replace(generation, stop=stop or None, stop_token_ids=tuple(dict.fromkeys(ids)) or None)
