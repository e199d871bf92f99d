"""`vigtui formats` and `vigtui doctor MODEL` as their users have them."""

import json
from collections.abc import Callable
from pathlib import Path

import pexpect
import pytest
from vigtui import assets

from ..chat.gguf import with_template
from ..chat.test_golden import GOLDEN, conversation
from .conftest import Run

EMBEDDED = assets.path("vigogneau/vigogneau.gguf")
OWN: str = json.loads(assets.path("vigogneau/hf/tokenizer_config.json").read_text(encoding="utf-8"))["chat_template"]
TALK = [("user", "Bonjour."), ("assistant", "Bonjour, tu vas bien ?"), ("user", "Non </s>.")]


@pytest.fixture
def talk(tmp_path: Path) -> str:
    """A file of three messages."""
    path = tmp_path / "talk.json"
    path.write_text(json.dumps([{"role": role, "content": text} for role, text in TALK]))
    return str(path)


def test_the_list_and_one_format(run: Run) -> None:
    listed = json.loads(run("formats", "ls", "--json").stdout)
    assert len(listed) == 35 and {"id", "policy", "template", "source"} <= set(listed[0])
    assert "vigogne-chat-v3-hf" in run("formats", "ls").stdout
    shown = run("formats", "show", "cv-interaction").stdout
    assert "tail-chars" in shown and "interaction.py" in shown and "### Response:" in shown
    assert json.loads(run("formats", "show", "vigogne-chat-v1+eos", "--json").stdout)["eos_in_history"] is True
    assert run("formats", "show", "vigogne-chat-v9").returncode == 3


@pytest.mark.parametrize(
    "key", ["vigogne-chat-v2/3", "vigogne-instruct-v3/input", "cv-bot-user/1", "fastchat:llama-2/system/3"]
)
def test_a_prompt_is_printed_exactly(run: Run, key: str) -> None:
    id, messages, input = conversation(key)
    data = json.dumps([{"role": one.role, "content": one.content} for one in messages])
    more = ["--input", input] if input is not None else []
    done = run("formats", "render", id, "--messages", "-", *more, input=data)
    assert (done.stdout, done.stderr, done.returncode) == (GOLDEN[key], "", 0)


def test_the_states_of_the_system_message(run: Run, talk: str) -> None:
    def start(*flags: str) -> str:
        return run("formats", "render", "vigogne-chat-v2", "--messages", talk, *flags).stdout.split("\n")[0]

    assert start("--system", "Sois bref.") == "<|system|>: Sois bref."
    assert start("--system", "") == "<|system|>: "
    assert start("--no-system") == "<|user|>: Bonjour."
    assert start().startswith("<|system|>: Vous êtes Vigogne")
    assert run("formats", "render", "raw", "--messages", talk, "--system", "a", "--no-system").returncode == 2


def test_tokens_and_a_limit(run: Run, talk: str) -> None:
    render = ("formats", "render", "vigogne-chat-v2", "--messages", talk, "-m", "vigogneau")
    whole = json.loads(run(*render, "--json").stdout)
    assert whole["count"] == len(whole["tokens"]) and whole["tokens"][0]["text"] == "<s>"
    assert [one["text"] for one in whole["tokens"]].count("</s>") == 1
    lines = run(*render, "--tokens").stdout.splitlines()
    assert [int(line.split()[0]) for line in lines] == [one["id"] for one in whole["tokens"]]
    cut = run(*render, "--limit", str(whole["count"]))
    assert "Bonjour." not in cut.stdout and cut.stdout.endswith("<|user|>: Non </s>.\n<|assistant|>:")
    assert "Left out: 1. user: Bonjour." in cut.stderr and "Left out: 2. assistant" in cut.stderr
    assert run(*render, "--limit", "3").returncode == 8


@pytest.mark.parametrize("data", ["", "{", "[1]", "{}", '[{"role": "user"}]', '[{"role": "user", "content": 3}]', "[]"])
def test_what_are_no_messages(run: Run, data: str) -> None:
    done = run("formats", "render", "raw", "--messages", "-", input=data)
    assert done.returncode == 2 and done.stdout == "" and done.stderr.count("\n") == 1


def test_a_limit_needs_a_model(run: Run, talk: str) -> None:
    assert run("formats", "render", "raw", "--messages", talk, "--limit", "9").returncode == 2


def test_the_doctor_explains_the_embedded_model(run: Run) -> None:
    done = run("doctor", "vigogneau", "--ask", "Qui es-tu ?", "--json")
    report = json.loads(done.stdout)
    assert done.returncode == 0 and report["findings"] == [] and report["answer"]["text"]
    assert report["format"] == "vigogne-chat-v2" and report["origin"] == "record"
    assert "".join(one["text"] for one in report["pieces"]) == report["prompt"]
    plain = run("doctor", "vigogneau", "--try-formats").stdout
    assert "\x1b" not in plain and "Nothing is wrong with this prompt." in plain
    ranked = plain[plain.index("Formats, the cleanest first") :]
    assert ranked.index("vigogne-chat-v2") < ranked.index("vicuna-v1.1")


def test_the_doctor_catches_a_damaged_template(run: Run, tmp_path: Path) -> None:
    broken = with_template(EMBEDDED, tmp_path / "broken.gguf", OWN.replace("{% endif %}", "", 1))
    done = run("doctor", str(broken))
    assert done.returncode == 6 and "does not render" in done.stdout and "[damaged]" in done.stdout
    silent = with_template(EMBEDDED, tmp_path / "silent.gguf", OWN.replace(" + eos_token", ""))
    report = json.loads(run("doctor", str(silent), "--json").stdout)
    assert {"no-stop", "disagree"} <= {one["code"] for one in report["findings"]}
    assert "vigogne-chat-v2" in next(one["text"] for one in report["findings"] if one["code"] == "disagree")


def test_the_doctor_knows_a_wrong_eos(run: Run, tmp_path: Path) -> None:
    path = with_template(EMBEDDED, tmp_path / "eos.gguf", OWN, eos=1)
    report = json.loads(run("doctor", str(path), "--json").stdout)
    assert "files" in [one["code"] for one in report["findings"]]


def test_colours_are_for_a_terminal(terminal: Callable[..., "pexpect.spawn[str]"]) -> None:
    child = terminal("doctor", "vigogneau", TERM="xterm", NO_COLOR="")
    child.expect(pexpect.EOF)
    assert "\x1b[1;32mWho are you?\x1b[0m" in (child.before or "")
    bare = terminal("doctor", "vigogneau", TERM="xterm", NO_COLOR="1")
    bare.expect(pexpect.EOF)
    assert "\x1b[" not in (bare.before or "")


def test_questions_need_a_model(run: Run) -> None:
    assert run("doctor", "--try-formats").returncode == 2
    assert run("doctor", "no-such-model").returncode == 3


def test_an_overflowing_chat_is_told(run: Run) -> None:
    first = json.loads(run("-p", "un " * 150, "--json", "-n", "1").stdout)
    again = ("-c", first["session"], "-n", "1", "--ctx", "512")
    for _round in range(4):
        done = run("-p", "un " * 150, "--json", *again)
    found = json.loads(done.stdout)
    assert len(found["truncated"]) >= 2 and any("context" in notice for notice in found["notices"])
    assert "no longer fit the context" in done.stderr
    shorter = json.loads(run("-p", "un " * 100, "--json", "--format", "vicuna-v1.1", *again).stdout)
    assert shorter["truncated"]
    assert run("-p", "un " * 900, "--ctx", "512").returncode == 8
