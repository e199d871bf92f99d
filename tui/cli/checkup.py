"""`vigtui doctor MODEL`: what this model is sent, how it answers, and what is wrong with either."""

import json
import shutil
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from ...core.i18n import _
from ...core.text import line, safe
from .output import Meter, emphasis, print_json, print_rows

if TYPE_CHECKING:
    from ...chat.doctor import Report, Token
    from ...chat.trial import Trial
    from ...registry.record import Record

COLOURS = {"template": "36", "system": "33", "user": "1;32", "assistant": "34", "special": "1;35"}
"""Part of a prompt → SGR code: what the template writes, the messages, control tokens."""
MARKS = {"bos": "1;35", "eos": "1;31", "stop": "1;31", "special": "1;35"}


@dataclass(frozen=True, slots=True)
class Checkup:
    """The report on a model, its answer to the question, and its answers under other formats, best first."""

    record: "Record"
    report: "Report"
    question: str
    answer: "Trial"
    trials: "Sequence[Trial]"

    @property
    def code(self) -> int:
        """The exit code: 6 when the model's own template is damaged."""
        return 6 if any(found.code == "damaged" for found in self.report.findings) else 0

    def table(self) -> dict[str, Any]:
        """Give it as JSON values."""
        found = {"model": self.record.ref, **self.report.table(), "question": self.question}
        return {**found, "answer": self.answer.table(), "trials": [one.table() for one in self.trials]}


def checkup(name: str, form: str | None, question: str, try_formats: bool) -> Checkup:
    """Load the model `name`, ask it `question`, and with `try_formats` again under every plausible format.

    Raises what resolving, loading and answering raise.
    """
    from ...backends.base import LoadOptions, Message
    from ...chat import doctor, trial
    from ...chat.prepare import Source
    from ...registry import open as opening

    record = opening.resolve(name)
    source, messages = Source(record.ref, "", record.format), [Message("user", question)]
    with Meter() as meter, closing(opening.open(record, LoadOptions(), progress=meter)) as engine:
        report = doctor.examine(engine, source, messages, override=form, notices=record.notices)
        answer = trial.attempt(engine, report, _never)
        assert engine.info is not None
        ids = trial.plausible(source, engine.info, alternatives(record)) if try_formats else []
        trials = trial.rank(engine, source, messages, ids, _never)
    return Checkup(record, report, question, answer, trials)


def _never() -> bool:
    return False


def alternatives(record: "Record") -> tuple[str, ...]:
    """Give the formats that the catalogue names beside the record's."""
    from ...registry import catalogue

    repository, _at, revision = record.source.partition("@")
    entry = catalogue.lookup(repository.strip(), revision.strip() or "main")
    return entry.formats if entry else ()


def show(found: Checkup, machine: bool) -> None:
    """Print the checkup, coloured on a terminal."""
    if machine:
        return print_json(found.table())
    _overview(found)
    _title(_("Prompt"))
    click.echo("".join(emphasis(safe(one.text), COLOURS[one.kind]) for one in found.report.pieces))
    _title(_("Tokens"))
    _tokens(found.report.tokens)
    _title(_("Findings"))
    for one in found.report.findings:
        click.echo(f"{emphasis('!', '1;31')} {line(one.text)} [{one.code}]")
    if not found.report.findings:
        click.echo(_("Nothing is wrong with this prompt."))
    _answer(found)
    if found.trials:
        _title(_("Formats, the cleanest first"))
        _trials(found.trials)


def _title(text: str) -> None:
    click.echo("\n" + emphasis(text, "1"))


def _overview(found: Checkup) -> None:
    from ...registry.open import reason

    report = found.report
    size = _("{tokens} tokens; a prompt must stay below {limit}").format(tokens=len(report.tokens), limit=report.limit)
    rows = [
        (_("Model"), found.record.ref),
        (_("Backend"), reason(found.record)),
        (_("Format"), f"{report.form.id} · {report.reason}"),
        (_("Stops"), "  ".join(json.dumps(stop, ensure_ascii=False) for stop in report.stops)),
        (_("Size"), size),
    ]
    print_rows(rows)


def _tokens(tokens: "Sequence[Token]") -> None:
    """Print id and text of each token, as many on a line as there is room for."""
    room, used = shutil.get_terminal_size().columns, 0
    out = ""
    for token in tokens:
        text = json.dumps(safe(token.text), ensure_ascii=False)
        plain = f"{token.id} {text}" + (f" {token.mark.upper()}" if token.mark else "")
        if used and used + len(plain) + 3 > room:
            out, used = out + "\n", 0
        out += (" · " if used else "") + (emphasis(plain, MARKS[token.mark]) if token.mark else plain)
        used += len(plain) + 3
    click.echo(out)


def _answer(found: Checkup) -> None:
    answer = found.answer
    _title(_("Answer to “{question}”").format(question=line(found.question)))
    click.echo(safe(answer.text))
    ended = _("it ended by itself") if answer.ended else _("it did not end by itself")
    leaked = _("leaked: {markers}").format(markers=" ".join(answer.leaked)) if answer.leaked else _("no marker leaked")
    click.echo("→ " + line(_("{tokens} tokens; {ended}; {leaked}").format(
        tokens=answer.tokens, ended=ended, leaked=leaked)))  # fmt: skip


def _trials(trials: "Sequence[Trial]") -> None:
    head = (_("FORMAT"), _("ENDS"), _("LEAKED"), _("LOG-LIKELIHOOD"), _("ANSWER"))
    rows = [
        (
            one.form,
            _("yes") if one.ended else _("no"),
            " ".join(one.leaked) or "–",
            "–" if one.likelihood is None else f"{one.likelihood:.3f}",
            line(one.text)[:60],
        )
        for one in trials
    ]
    print_rows([head, *rows])
