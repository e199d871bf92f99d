"""What the doctor looks at in the app: the prompt of this chat, and how the model answers it. No widget in it."""

from collections.abc import Sequence

from ..backends.base import Stop
from ..chat import doctor, trial
from ..chat.doctor import Report
from ..chat.formats import System
from ..chat.record import Entry
from ..chat.trial import Trial
from ..core.errors import BackendError
from ..core.i18n import _
from .cli.checkup import alternatives
from .desk import Desk


def examine(desk: Desk, draft: str, path: Sequence[Entry]) -> Report:
    """Give the report on what is sent for `draft` after `path`; without a draft, on the last prompt that was sent.

    Raises BackendError while no model is loaded, ContextError, FormatError and NotFoundError.
    """
    asked = [place for place, entry in enumerate(path) if entry.role == "user"]
    if not draft.strip():
        draft, path = (path[asked[-1]].content, path[: asked[-1]]) if asked else (_("Who are you?"), path)
    prepared, engine = desk.count(draft, path), desk.engine
    if prepared is None or engine is None:
        raise BackendError(_("No model is loaded."))
    return doctor.about(engine, desk.source, prepared, desk.session.conversation.format)


def trials(desk: Desk, report: Report, ranked: bool, stop: Stop) -> list[Trial]:
    """Give the answer to the prompt of `report`, or with `ranked` one under each plausible format, the cleanest first.

    Nothing of it is kept. Raises ContextError and BackendError.
    """
    with desk.alone() as (engine, closing):

        def ends() -> bool:
            return stop() or closing()

        if not ranked:
            return [trial.attempt(engine, report, ends)]
        assert engine.info is not None
        messages = report.prompt.messages
        system = None if messages and messages[0].role == "system" else System("none")
        other = alternatives(desk.record) if desk.record else ()
        ids = list(dict.fromkeys([report.form.id, *trial.plausible(desk.source, engine.info, other)]))
        return trial.rank(engine, desk.source, messages, ids, ends, system=system)
