"""The plain chat in a real pseudo-terminal."""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pexpect
import pytest

from ..tiny import write_own
from .conftest import Run, children

Start = Callable[..., "pexpect.spawn[str]"]
ENDLESS = ("-n", "60000", "--min-tokens", "60000", "--temperature", "1.0")


def say(child: "pexpect.spawn[str]", text: str, *expected: str) -> None:
    """Type `text` at the prompt and wait for what is expected and the next prompt."""
    child.sendline(text)
    for pattern in (*expected, ">>> "):
        child.expect(pattern)


def leave(child: "pexpect.spawn[str]") -> None:
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0


@pytest.fixture
def chat(terminal: Start, tiny: str) -> "pexpect.spawn[str]":
    """A chat with the engine that repeats the last message."""
    child = terminal("-m", tiny, "--backend", "echo")
    child.expect(">>> ")
    return child


def messages(run: Run) -> list[str]:
    newest = json.loads(run("sessions", "ls", "--json").stdout)[0]["id"]
    return [m["content"] for m in json.loads(run("sessions", "show", newest, "--json").stdout)["messages"]]


def test_it_answers_and_keeps_what_was_said(chat: "pexpect.spawn[str]", run: Run) -> None:
    say(chat, "first words", "first words\r\n", "first words\r\n")
    chat.sendline("/bye")
    leave(chat)
    assert messages(run) == ["first words", "first words"]


@pytest.mark.parametrize("end", ["/exit", "/quit"])
def test_other_ways_to_leave(chat: "pexpect.spawn[str]", end: str) -> None:
    chat.sendline(end)
    leave(chat)


def test_ctrl_d_leaves(chat: "pexpect.spawn[str]") -> None:
    chat.sendeof()
    leave(chat)


def test_ctrl_c_twice_leaves(chat: "pexpect.spawn[str]") -> None:
    chat.sendintr()
    chat.expect("Ctrl-C again")
    say(chat, "still here", "still here\r\n", "still here\r\n")
    chat.sendintr()
    chat.expect("Ctrl-C again")
    chat.expect(">>> ")
    chat.sendintr()
    leave(chat)


def test_ctrl_c_stops_an_answer_and_keeps_the_chat(terminal: Start, endless: str, run: Run) -> None:
    child = terminal("-m", endless, *ENDLESS)
    child.expect(">>> ")
    child.sendline("hello")
    child.expect("hello\r\n.{30}")
    child.sendintr()
    child.expect("Stopped")
    child.expect(">>> ")
    say(child, "/set max_tokens 3", "max_tokens +3 +set")
    say(child, "/set min_tokens 0")
    say(child, "again", "again\r\n")
    child.sendline("/bye")
    leave(child)
    kept = messages(run)
    assert kept[0::2] == ["hello", "again"]
    assert len(kept[1]) >= 30


def test_an_engine_that_is_killed_does_not_end_the_chat(terminal: Start, endless: str, run: Run) -> None:
    child = terminal("-m", endless, *ENDLESS)
    child.expect(">>> ")
    child.sendline("hello")
    child.expect("hello\r\n.{30}")
    (engine,) = children(child.pid)
    os.kill(engine, signal.SIGKILL)
    child.expect("SIGKILL")
    child.expect(">>> ")
    say(child, "/set max_tokens 3")
    say(child, "/set min_tokens 0")
    say(child, "again", "again\r\n")
    assert children(child.pid) not in ([], [engine])
    child.sendline("/bye")
    leave(child)
    kept = messages(run)
    assert kept[0::2] == ["hello", "again"]
    assert len(kept[1]) >= 30


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_an_ending_signal_keeps_the_answer(terminal: Start, endless: str, run: Run, number: int) -> None:
    child = terminal("-m", endless, *ENDLESS)
    child.expect(">>> ")
    child.sendline("hello")
    child.expect("hello\r\n.{30}")
    child.kill(number)
    child.expect(pexpect.EOF)
    assert len(messages(run)[1]) >= 30


def test_new_begins_another_conversation(chat: "pexpect.spawn[str]", run: Run) -> None:
    say(chat, "one")
    say(chat, "/new", "new conversation")
    say(chat, "two")
    chat.sendline("/bye")
    leave(chat)
    assert messages(run) == ["two", "two"]
    assert len(json.loads(run("sessions", "ls", "--json").stdout)) == 2


def test_system(chat: "pexpect.spawn[str]", run: Run) -> None:
    say(chat, "/system Be brief.", "Be brief.\r\n", "Be brief.\r\n")
    say(chat, "/system none", "No system message")
    say(chat, '/system ""', "is empty")
    say(chat, "/system Last word.")
    say(chat, "hello")
    chat.sendline("/bye")
    leave(chat)
    (kept,) = json.loads(run("sessions", "ls", "--json").stdout)
    assert kept["system"] == {"state": "text", "text": "Last word."}


def test_set(terminal: Start, tiny: str, home: Path) -> None:
    (home / "config" / "personas").mkdir(parents=True)
    (home / "config" / "personas" / "p.toml").write_text("[generation]\ntop_k = 9\n")
    child = terminal("-m", tiny, "--backend", "echo", "--persona", "p", "--top-p", "0.5")
    child.expect(">>> ")
    say(child, "/set", r"temperature +0\.1 +default", r"top_p +0\.5 +flag", r"top_k +9 +persona")
    say(child, "/set top_k 7", "top_k +7 +set")
    say(child, "/set top_k default", "top_k +9 +persona")
    say(child, '/set stop "a b" c', "'a b' 'c' +set")
    say(child, "/set temperature hot", "cannot be hot")
    say(child, "/set temperature -3", "temperature must lie between")
    say(child, "/set nothing 3", "no value nothing")
    say(child, "/set max_tokens 2")
    say(child, "one two three four", "three four\r\n", "one two\r\n")
    child.sendline("/bye")
    leave(child)


def test_model(chat: "pexpect.spawn[str]", run: Run, endless: str) -> None:
    say(chat, "/model", "tiny:F32 · echo")
    say(chat, f"/model {endless}", "endless:F32 · echo")
    say(chat, "/model nothing-such", "no model nothing-such")
    say(chat, "hello", "hello\r\n", "hello\r\n")
    chat.sendline("/bye")
    leave(chat)
    (kept,) = json.loads(run("sessions", "ls", "--json").stdout)
    assert kept["model"] == "endless:F32"


def test_a_model_that_cannot_be_loaded_leaves_the_old_one(terminal: Start, tiny: str, tmp_path: Path) -> None:
    (tmp_path / "cut.gguf").write_bytes(Path(tiny).read_bytes()[:-1000])
    child = terminal("-m", tiny, "-n", "3")
    child.expect(">>> ")
    say(child, f"/model {tmp_path / 'cut.gguf'}", "cut")
    say(child, "/model", "tiny:F32 · llama.cpp")
    child.sendline("/bye")
    leave(child)


def test_code_that_comes_with_a_model_runs_only_when_the_person_agrees(
    terminal: Start, run: Run, tiny: str, tmp_path: Path
) -> None:
    own = str(write_own(tmp_path / "own", tmp_path / "ran"))
    script = run("-m", own, "-p", "Bonjour", "-n", "2", "--json")
    assert script.returncode == 7 and "--trust-remote-code" in script.stderr and not script.stdout
    child = terminal("-m", tiny, "-n", "3")
    child.expect(">>> ")
    child.sendline(f"/model {own}")
    child.expect("y/N")
    child.sendintr()
    child.expect("--trust-remote-code")
    child.expect(">>> ")
    say(child, "/model", "tiny:F32 · llama.cpp")
    child.sendline("/bye")
    leave(child)
    assert not (tmp_path / "ran").exists()

    child = terminal("-m", own)
    child.expect(f"own.*{own}.*y/N")
    child.sendline("y")
    child.expect("own.* · transformers")
    child.expect(">>> ")
    child.sendline("/bye")
    leave(child)
    assert (tmp_path / "ran").exists()


def test_unknown_commands_and_help(chat: "pexpect.spawn[str]") -> None:
    say(chat, "/etc/passwd", "no command /etc/passwd", "space before the slash")
    say(chat, " /etc/passwd", "/etc/passwd\r\n", "/etc/passwd\r\n")
    say(chat, "/help", "/new", "/model", "/system", "/set", "/bye", '"""')


def test_several_lines(chat: "pexpect.spawn[str]", run: Run) -> None:
    chat.sendline('"""first')
    chat.expect(r"\.\.\. ")
    chat.sendline("second")
    chat.expect(r"\.\.\. ")
    chat.sendline('third"""')
    chat.expect(">>> ")
    chat.sendline("/bye")
    leave(chat)
    assert messages(run)[0] == "first\nsecond\nthird"


def test_continue_and_history(terminal: Start, chat: "pexpect.spawn[str]", run: Run, tiny: str, home: Path) -> None:
    say(chat, "first")
    chat.sendline("/bye")
    leave(chat)
    done = run("-c", "-p", "second", "--backend", "echo")
    assert (done.returncode, done.stdout) == (0, "second\n")
    assert messages(run) == ["first", "first", "second", "second"]
    assert "first" in (home / "data" / "history").read_text()
    assert (home / "data" / "history").stat().st_mode & 0o077 == 0


def test_a_one_shot_that_becomes_a_chat_is_listed(terminal: Start, run: Run, tiny: str) -> None:
    assert run("-m", tiny, "-p", "first", "--backend", "echo").returncode == 0
    child = terminal("-c", "--backend", "echo")
    child.expect(">>> ")
    say(child, "second", "second\r\n", "second\r\n")
    child.sendline("/bye")
    leave(child)
    assert messages(run) == ["first", "first", "second", "second"]


def test_no_save_keeps_nothing(terminal: Start, tiny: str, home: Path) -> None:
    child = terminal("-m", tiny, "--backend", "echo", "--no-save")
    child.expect(">>> ")
    say(child, "a secret")
    child.sendline("/bye")
    leave(child)
    assert not any(b"secret" in file.read_bytes() for file in home.rglob("*") if file.is_file())


def test_control_characters_stay_off_the_screen(chat: "pexpect.spawn[str]") -> None:
    chat.sendline('"""')
    chat.expect(r"\.\.\. ")
    chat.send("a\x16\x1b]0;title\x16\x07b\n")  # Ctrl-V takes the next key as it is
    chat.expect(r"\.\.\. ")
    chat.sendline('"""')
    chat.expect("\nab\r\n")


def test_the_guide_introduces_itself_once(terminal: Start) -> None:
    child = terminal("--backend", "echo")
    child.expect("tiny guide")
    child.expect(">>> ")
    child.sendeof()
    leave(child)
    child = terminal("--backend", "echo")
    assert child.expect(["tiny guide", ">>> "]) == 1


def test_flags_that_need_a_prompt(terminal: Start) -> None:
    child = terminal("--json")
    child.expect("--json needs a prompt")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 2
