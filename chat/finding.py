"""What can be wrong with a prompt format in front of a model: each check gives a sentence when it is."""

import difflib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from ..backends.base import Backend, Message, ModelInfo, Prompt
from ..core.errors import VigtuiError
from ..core.i18n import _
from . import formats
from .formats import Format
from .render import Draft, draft, folds_system, leading

PROBE = ("vigtui-probe-system", "vigtui-probe-question", "vigtui-probe-answer", "vigtui-probe-last")
CONTROL = frozenset(
    {
        "<s>", "</s>", "<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|begin_of_text|>", "<|eot_id|>",
        "<|start_header_id|>", "<|end_header_id|>", "<start_of_turn>", "<end_of_turn>", "<bos>", "<eos>", "<|end|>",
    }
)  # fmt: skip
"""Texts that are control tokens wherever they were trained; as plain text they mean nothing."""
_BEGINS = frozenset({"<s>", "<bos>", "<|begin_of_text|>", "<｜begin▁of▁sentence｜>"})


@dataclass(frozen=True, slots=True)
class Finding:
    """A warning: `code` for programs, `text` for people."""

    code: str
    text: str


def findings(engine: Backend, info: ModelInfo, form: Format, made: Draft, tokens: Sequence[str]) -> list[Finding]:
    """Give everything that is wrong with sending `made`, whose tokens have the texts `tokens`."""
    return [
        *_beginning(info, made, tokens),
        *_system(info, form),
        *_history(info, form),
        *_ending(info, form),
        *_markers(engine, info, made, tokens),
        *_disagreement(info, form),
    ]


def probe(form: Format, info: ModelInfo, history: bool = True) -> str:
    """Give what `form` makes of a conversation of words that no template writes, without BOS.

    Raises FormatError when it does not render.
    """
    first = [Message("system", PROBE[0]), Message("user", PROBE[1])]
    more = [Message("assistant", PROBE[2]), Message("user", PROBE[3])] if history else []
    return draft(form, first + more, info).prompt().text


def _beginning(info: ModelInfo, made: Draft, tokens: Sequence[str]) -> Iterator[Finding]:
    written = leading(made.text, info.bos)
    if written > 1:
        text = _("The template writes {bos} {count} times at the start; vigtui sends it once.")
        yield Finding("double-bos", text.format(bos=info.bos, count=written))
    if tokens[:2] == [info.bos] * 2:
        yield Finding("double-bos", _("The prompt begins with {bos} twice.").format(bos=info.bos))
    if info.bos in _BEGINS and info.architecture != "bloom" and info.bos not in tokens[:1]:
        text = _("The prompt does not begin with {bos}: neither the template nor the tokenizer writes it.")
        yield Finding("missing-bos", text.format(bos=info.bos))


def _system(info: ModelInfo, form: Format) -> Iterator[Finding]:
    if folds_system(form, info):
        text = _("The template drops the system message; vigtui puts it before the first message instead.")
        yield Finding("drops-system", text)


def _history(info: ModelInfo, form: Format) -> Iterator[Finding]:
    """A template may work for the first message only, leave messages out, or not say whose turn it is."""
    try:
        text = probe(form, info)
    except VigtuiError as error:
        yield Finding("damaged", _("With earlier messages: {error}").format(error=error.message))
        return
    if lost := [word for word in PROBE[1:] if word not in text]:
        yield Finding("drops-messages", _("The template leaves out {count} of 3 messages.").format(count=len(lost)))
    elif form.own and text.endswith(PROBE[3]):
        yield Finding("no-cue", _("The template writes nothing after the question to say that the model is to answer."))


def _ending(info: ModelInfo, form: Format) -> Iterator[Finding]:
    ends = {*info.ends, info.eos} - {""}
    if not ends and not form.stop and not form.stop_token_ids:
        yield Finding("no-stop", _("Nothing ends an answer: the model has no EOS, and the format has no stop strings."))
        return
    try:
        text = probe(form, info)
    except VigtuiError:
        return
    closing = text.partition(PROBE[2])[2].partition(PROBE[3])[0]
    marks = [special for special in info.specials if special and special in closing]
    if marks and not ends.union(form.stop) & set(marks):
        sentence = _("The template closes an answer with {token}, which does not end an answer of this model.")
        yield Finding("no-stop", sentence.format(token=min(marks, key=closing.index)))
    elif form.own and not marks:
        yield Finding("no-stop", _("The template closes earlier answers with nothing that ends an answer."))


def _markers(engine: Backend, info: ModelInfo, made: Draft, tokens: Sequence[str]) -> Iterator[Finding]:
    for marker in sorted(CONTROL.difference(info.specials)):
        if marker in made.text and not any(marker in message.content for message in made.messages):
            count = len(engine.tokenize(Prompt(((marker, True),)))) - info.adds_bos
            text = _("{marker} is no token of this model; it is read as {count} pieces of ordinary text.")
            yield Finding("odd-marker", text.format(marker=marker, count=count))
    if "<unk>" in info.specials and "<unk>" in tokens:
        yield Finding("odd-marker", _("The tokenizer does not know some character of the prompt and reads <unk>."))
    if re.search(r"[ \t]\Z", made.text) and not made.messages[-1].content.endswith((" ", "\t")):
        text = _("The prompt ends with a space, which most tokenizers join to the word that follows.")
        yield Finding("odd-marker", text)


def _disagreement(info: ModelInfo, form: Format) -> Iterator[Finding]:
    if form.own:
        yield from _near(info, form)
    elif info.chat_template:
        try:
            ours, own = probe(form, info), probe(formats.own(info), info)
        except VigtuiError as error:
            yield Finding("disagree", _("The model's own template: {error}").format(error=error.message))
            return
        if ours != own:
            text = _("The model's own template disagrees with the format {id}: {difference}.")
            yield Finding("disagree", text.format(id=form.id, difference=_difference(own, ours)))


def _near(info: ModelInfo, form: Format) -> Iterator[Finding]:
    """A template that is almost a known format was probably meant to be it."""
    try:
        own = probe(form, info)
    except VigtuiError:
        return
    others = {one.id: probe(one, replace(info, chat_template=None)) for one in formats.everything()[0]}
    if own in others.values():
        return
    ratio, id = max((difflib.SequenceMatcher(None, own, text, False).ratio(), id) for id, text in others.items())
    if ratio > 0.9:
        text = _("The model's own template is almost the format {id}, but not quite: {difference}.")
        yield Finding("disagree", text.format(id=id, difference=_difference(own, others[id])))


def _difference(own: str, ours: str) -> str:
    """Give the first place where two prompts differ, as a clause."""
    match = difflib.SequenceMatcher(None, own, ours, False)
    if match.ratio() < 0.7:
        return _("they have little in common")
    _kind, a, b, c, d = next(change for change in match.get_opcodes() if change[0] != "equal")
    where = _("after {before}").format(before=_quoted(own[max(0, a - 12) : a])) if a else _("at the start")
    return _("{where} it writes {own} instead of {ours}").format(
        where=where, own=_quoted(own[a:b]), ours=_quoted(ours[c:d])
    )


def _quoted(text: str) -> str:
    shown = text if len(text) <= 40 else text[:39] + "…"
    return repr(shown) if shown else _("nothing")
