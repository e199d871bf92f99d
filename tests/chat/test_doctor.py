"""The template doctor on real tokenizers: what is sent, where it comes from, and what is wrong."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from vigtui import assets
from vigtui.backends.base import Backend, Generation, LoadOptions, Message, ModelFiles
from vigtui.backends.echo import EchoBackend
from vigtui.backends.llama_cpp import LlamaCppBackend
from vigtui.chat.doctor import Report, about, examine
from vigtui.chat.formats import System
from vigtui.chat.prepare import Source
from vigtui.chat.session import Session
from vigtui.chat.trial import attempt, plausible, rank
from vigtui.core import paths
from vigtui.core.errors import BackendError, FormatError
from vigtui.core.progress import silent

from .toy import echo, talk

EMBEDDED = assets.path("vigogneau/vigogneau.gguf")
OWN: str = json.loads(assets.path("vigogneau/hf/tokenizer_config.json").read_text(encoding="utf-8"))["chat_template"]


def never() -> bool:
    return False


@pytest.fixture(scope="module")
def engine() -> Iterator[Backend]:
    engine = LlamaCppBackend()
    engine.load(ModelFiles("vigogneau", "gguf", EMBEDDED), LoadOptions(), silent)
    yield engine
    engine.close()


Doctor = Callable[..., Report]


@pytest.fixture
def doctor(engine: Backend) -> Iterator[Doctor]:
    """Examine the embedded model as if its file held the template `own`."""
    info = engine.info
    assert info is not None

    def examine_it(own: str | None = OWN, *, record: str | None = None, override: str | None = None, **changes: object):
        engine.info = replace(info, chat_template=own, **changes)  # pyright: ignore
        return examine(engine, Source(format=record), talk("Qui es-tu ?"), override=override)

    yield examine_it
    engine.info = info


def codes(report: Report) -> list[str]:
    return [finding.code for finding in report.findings]


def test_the_embedded_model_is_explained(engine: Backend) -> None:
    report = examine(engine, Source(format="vigogne-chat-v2"), talk("a</s>b"))
    assert report.form.id == "vigogne-chat-v2" and report.origin == "record" and report.findings == ()
    assert [(one.kind, one.text) for one in report.pieces] == [
        ("template", "<|system|>: "),
        ("system", report.form.system),
        ("template", "\n<|user|>: "),
        ("user", "a</s>b"),
        ("template", "\n<|assistant|>:"),
    ]
    assert "".join(one.text for one in report.pieces) == report.prompt.text
    assert report.tokens[0].mark == "bos" and {one.mark for one in report.tokens[1:]} == {""}
    assert [one.id for one in report.tokens] == engine.tokenize(report.prompt)
    assert report.stops[:2] == ("</s>", "<|user|>")
    assert json.loads(json.dumps(report.table()))["findings"] == []


def test_a_server_renders_unseen(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = echo()
    monkeypatch.setattr(EchoBackend, "supports", EchoBackend.supports | {"chat"})
    with pytest.raises(BackendError) as caught:
        examine(engine, Source("far"), talk("Qui es-tu ?"))
    assert "far" in caught.value.message and "server" in caught.value.message


def test_control_tokens_are_marked(engine: Backend) -> None:
    report = examine(engine, Source(format="vigogne-chat-v2"), talk("a", "b", "c"), system=System("none"))
    assert ("special", "</s>") in [(one.kind, one.text) for one in report.pieces]
    assert [one.text for one in report.tokens if one.mark == "eos"] == ["</s>"]


def test_why_a_format_was_chosen(doctor: Doctor) -> None:
    assert (doctor().origin, doctor().form.id) == ("own", "own")
    assert doctor(record="vigogne-chat-v2").origin == "record"
    assert doctor(override="llama-2").origin == "user"
    assert (doctor(None).origin, doctor(None).form.id) == ("guess", "raw")


def test_the_true_template_has_no_findings(doctor: Doctor) -> None:
    assert codes(doctor()) == [] and codes(doctor(record="vigogne-chat-v2")) == []


DAMAGE = [
    (OWN.replace("{% endfor %}", "", 1), ["damaged"]),
    ("{{ ''.__class__.__mro__ }}", ["damaged"]),
    (OWN.replace("{{ bos_token }}", "{{ bos_token }}{{ bos_token }}"), ["double-bos"]),
    (OWN.replace(" + eos_token", ""), ["no-stop", "disagree"]),
    (OWN.replace("<|assistant|>:'", "<|asistant|>:'"), ["disagree"]),
    (OWN.replace("system_message.strip()", "''"), ["drops-system", "disagree"]),
    (OWN.replace("{{ '<|assistant|>:' }}", "").replace("'\\n' }}{% elif", "'' }}{% elif"), ["no-cue", "disagree"]),
    (OWN.replace("loop_messages %}{% if (", "loop_messages[-1:] %}{% if (", 1), ["drops-messages", "no-stop"]),
    (OWN.replace("<|system|>: ", "<|im_start|>"), ["odd-marker", "disagree"]),
    (OWN.replace("'<|assistant|>:' }}{% endif %}", "'<|assistant|>: ' }}{% endif %}"), ["odd-marker", "disagree"]),
]  # fmt: skip


@pytest.mark.parametrize(("template", "expected"), DAMAGE)
def test_damage_is_found(doctor: Doctor, template: str, expected: list[str]) -> None:
    assert template != OWN
    assert set(expected) <= set(codes(doctor(template)))


def test_a_template_that_disagrees_with_the_catalogue(doctor: Doctor) -> None:
    [finding] = doctor(OWN.replace("<|user|>: ", "<|user|> : "), record="vigogne-chat-v2").findings
    assert finding.code == "disagree" and "' '" in finding.text
    assert "does not render" in doctor("{% for %}", record="vigogne-chat-v2").findings[0].text


def test_a_damaged_template_gives_way_to_a_guess_but_a_chosen_format_does_not(doctor: Doctor) -> None:
    report = doctor("{% for %}")
    assert (report.form.id, report.origin) == ("raw", "guess")
    path = paths.config() / "formats" / "mine.toml"
    path.parent.mkdir(parents=True)
    path.write_text('template = "{% for %}"')
    with pytest.raises(FormatError, match="does not render"):
        doctor(override="mine")


def test_ends_and_beginnings(doctor: Doctor) -> None:
    assert "missing-bos" in codes(doctor(OWN.replace("{{ bos_token }}", ""), bos="<bos>"))
    assert "no-stop" in codes(doctor(None, ends=(), eos=""))
    markers = ("<|im_start|>", "<|im_end|>", "<s>", "</s>")
    assert codes(doctor(None, override="chatml", specials=markers)) == []


def test_a_closing_token_that_is_no_end(doctor: Doctor) -> None:
    template = OWN.replace("eos_token", "'<unk>'")
    [found] = [finding for finding in doctor(template).findings if finding.code == "no-stop"]
    assert "<unk>" in found.text


def test_notices_of_the_record_are_findings(engine: Backend) -> None:
    report = examine(engine, Source(format="vigogne-chat-v2"), talk("a"), notices=["config.json ends at token 1."])
    assert [(one.code, one.text) for one in report.findings] == [("files", "config.json ends at token 1.")]


def test_a_prepared_chat_is_reported_as_it_is_sent(engine: Backend) -> None:
    session, source = Session.new(format="vicuna-v1.1"), Source(format="vigogne-chat-v2")
    for text in ("un " * 480, "un " * 480, "trois"):
        session.say(text)
        prepared = session.prepare(engine, source=source)
        report = about(engine, source, prepared, session.conversation.format)
        assert report.prompt == prepared.prompt and len(report.tokens) == prepared.tokens < report.limit == 768
        assert "".join(one.text for one in report.pieces) == prepared.prompt.text
        list(session.reply(engine, Generation(max_tokens=1), source=source))
    assert prepared.shortened or prepared.dropped
    stamp = session.path()[-1].stamp
    assert stamp and (*stamp.dropped, *stamp.shortened)


def test_the_answer_is_judged(engine: Backend) -> None:
    report = examine(engine, Source(format="vigogne-chat-v2"), talk("Qui es-tu ?"))
    trial = attempt(engine, report, never, measure=True)
    assert trial.text and trial.likelihood is not None and trial.likelihood <= 0.0
    assert not attempt(engine, report, never, max_tokens=2).ended


def test_formats_are_ranked_and_the_right_one_wins(engine: Backend) -> None:
    assert engine.info is not None
    source = Source(format="vigogne-chat-v2")
    ids = plausible(source, engine.info)
    assert ids[:2] == ["vigogne-chat-v2", "own"] and "chatml" not in ids
    trials = rank(engine, source, talk("Qui es-tu ?"), ids, never)
    assert len(trials) == len(ids) and {trials[0].form, trials[1].form} == {"vigogne-chat-v2", "own"}
    assert rank(engine, source, talk("a"), ids, lambda: True) == []


def test_leaks_and_endings_decide_the_order() -> None:
    engine = echo("bon <|user|>: et toi", "bon", "x " * 99)
    trials = rank(engine, Source(), talk("a"), ["alpaca", "raw", "vicuna-v1.1"], never)
    assert [one.form for one in trials] == ["raw", "alpaca", "vicuna-v1.1"]
    assert trials[1].leaked == ("<|user|>",) and not trials[2].ended and trials[0].likelihood is None
    assert isinstance(engine, EchoBackend) and [m.role for m in engine.prompts[0].messages] == ["system", "user"]
    assert Message("user", "a") in engine.prompts[1].messages
