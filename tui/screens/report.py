"""How the doctor's report is drawn."""

import json
from collections.abc import Iterator

from textual.content import Content

from ...chat.doctor import Report
from ...chat.trial import Trial
from ...core.i18n import _
from ...core.text import line, safe
from .. import number

STYLES = {
    "template": "$text-secondary", "system": "italic $text-warning", "user": "bold $text-success",
    "assistant": "$text-primary", "special": "bold $text-error",
}  # fmt: skip
"""Part of a prompt → style: what the template writes, the messages, control tokens."""
MARKS = {"bos": "bold $text-accent", "eos": "bold $text-error", "stop": "bold $text-error", "special": "bold"}


def titled(title: str, text: Content) -> Content:
    """Give `text` under a title, with a line before it."""
    return Content("\n").join([Content(""), Content.styled(title, "bold $text-primary"), *([text] if text else [])])


def overview(model: str, report: Report) -> Content:
    """Give the model, the format with the reason for it, the stops and the size."""
    size = _("{tokens} tokens; a prompt must stay below {limit}")
    stops = "  ".join(json.dumps(safe(stop), ensure_ascii=False) for stop in report.stops)
    rows = [
        (_("Model"), model),
        (_("Format"), f"{report.form.id} · {report.reason}"),
        (_("Stops"), stops),
        (_("Size"), size.format(tokens=number.count(len(report.tokens)), limit=number.count(report.limit))),
    ]
    wide = max(len(name) for name, _text in rows) + 2
    return Content("\n").join(
        [Content.assemble((name.ljust(wide), "$foreground 60%"), line(text)) for name, text in rows]
    )


def prompt(report: Report) -> Content:
    """Give the exact prompt, its parts in colours, every new line marked; the colours' names stand above it."""
    names = {
        "template": _("template"), "system": _("system"), "user": _("user"), "assistant": _("assistant"),
        "special": _("special"),
    }  # fmt: skip
    legend = Content("  ").join([Content.styled(names[kind], style) for kind, style in STYLES.items()])
    parts = [part for piece in report.pieces for part in _marked(safe(piece.text), STYLES[piece.kind])]
    return titled(_("Prompt"), Content("\n").join([legend, Content.assemble(*parts)]))


def _marked(text: str, style: str) -> Iterator[tuple[str, str]]:
    first, *others = text.split("\n")
    yield first, style
    for other in others:
        yield "⏎\n", "$foreground 40%"
        yield other, style


def tokens(report: Report, width: int) -> Content:
    """Give id and text of each token, as many on a line as `width` columns hold."""
    lines: list[list[Content]] = [[]]
    room = width
    for token in report.tokens:
        text = f"{token.id} {json.dumps(safe(token.text), ensure_ascii=False)}"
        shown = Content.styled(f"{text} {token.mark.upper()}".rstrip(), MARKS.get(token.mark, ""))
        if room < shown.cell_length and lines[-1]:
            lines.append([])
            room = width
        lines[-1].append(shown)
        room -= shown.cell_length + 3
    between = Content.styled(" · ", "$foreground 40%")
    return titled(_("Tokens"), Content("\n").join([between.join(one) for one in lines]))


def findings(report: Report) -> Content:
    """Give what is wrong with the prompt."""
    found = [Content.styled(f"! {line(one.text)}", "$text-warning") for one in report.findings]
    nothing = [Content.styled(_("Nothing is wrong with this prompt."), "$text-success")]
    return titled(_("Findings"), Content("\n").join(found or nothing))


def answer(trial: Trial) -> Content:
    """Give how the model answered, and how cleanly."""
    ended = _("it ended by itself") if trial.ended else _("it did not end by itself")
    leaked = _("leaked: {markers}").format(markers=" ".join(trial.leaked)) if trial.leaked else _("no marker leaked")
    facts = _("{tokens} tokens; {ended}; {leaked}").format(tokens=trial.tokens, ended=ended, leaked=leaked)
    style = "$text-success" if trial.clean else "$text-warning"
    return titled(_("Answer"), Content.assemble(safe(trial.text), "\n", (f"→ {line(facts)}", style)))


def row(one: Trial) -> tuple[str, ...]:
    """Give the line of a format in the ranking."""
    likelihood = "–" if one.likelihood is None else number.decimal(one.likelihood, 3)
    ends = _("yes") if one.ended else _("no")
    return (one.form, ends, " ".join(one.leaked) or "–", likelihood, line(one.text)[:60])
