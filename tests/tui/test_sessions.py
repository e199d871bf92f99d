"""`sessions ls|show|rm` and `personas ls|show`."""

import json
from collections.abc import Callable
from pathlib import Path

import pexpect
import pytest

from .conftest import Run


@pytest.fixture
def session(run: Run, tiny: str) -> str:
    done = run("-p", "hello \x1b[31mred", "-m", tiny, "--backend", "echo", "--json")
    return json.loads(done.stdout)["session"]


def test_nothing_yet(run: Run) -> None:
    assert json.loads(run("sessions", "ls", "--json").stdout) == []
    assert "no conversations yet" in run("sessions", "ls").stdout


def test_one_shots_are_hidden_but_kept(run: Run, session: str) -> None:
    assert json.loads(run("sessions", "ls", "--json").stdout) == []
    (found,) = json.loads(run("sessions", "ls", "--all", "--json").stdout)
    assert (found["id"], found["hidden"]) == (session, True)
    assert session in run("sessions", "ls", "-a").stdout


def test_show(run: Run, session: str) -> None:
    shown = run("sessions", "show", session[:5])
    assert shown.returncode == 0
    assert shown.stdout.count("hello red") == 3
    assert "\x1b" not in shown.stdout
    found = json.loads(run("sessions", "show", session, "--json").stdout)
    assert [message["role"] for message in found["messages"]] == ["user", "assistant"]
    assert found["messages"][1]["stamp"]["backend"] == "echo"
    assert run("sessions", "show", "zzz").returncode == 3


def test_rm_asks(run: Run, session: str, terminal: "Callable[..., pexpect.spawn[str]]") -> None:
    refused = run("sessions", "rm", session)
    assert refused.returncode == 2
    assert "-y" in refused.stderr
    child = terminal("sessions", "rm", session)
    child.expect("for good")
    child.sendline("n")
    child.expect(pexpect.EOF)
    assert len(json.loads(run("sessions", "ls", "-a", "--json").stdout)) == 1
    assert run("sessions", "rm", "-y", session, "zzz").returncode == 3
    assert len(json.loads(run("sessions", "ls", "-a", "--json").stdout)) == 1
    assert run("sessions", "rm", "-y", session).returncode == 0
    assert json.loads(run("sessions", "ls", "-a", "--json").stdout) == []


def test_personas(run: Run, home: Path, tiny: str) -> None:
    folder = home / "config" / "personas"
    folder.mkdir(parents=True)
    (folder / "captain.toml").write_text('description = "A captain"\nsystem = "Ahoy."\n[generation]\nseed = 42\n')
    (folder / "broken.toml").write_text("system = 3\n")
    listed = run("personas", "ls", "--json")
    assert "broken.toml" in listed.stderr
    assert "captain" in [one["name"] for one in json.loads(listed.stdout)]
    assert json.loads(run("personas", "show", "captain", "--json").stdout)["generation"] == {"seed": 42}
    assert "Ahoy." in run("personas", "show", "captain").stdout
    assert run("personas", "show", "nobody").returncode == 3
    done = run("-p", "x", "-m", tiny, "--backend", "echo", "--persona", "captain", "--json")
    assert json.loads(done.stdout)["seed"] == 42
    done = run("-p", "x", "-m", tiny, "--backend", "echo", "--persona", "captain", "--seed", "1", "--json")
    assert json.loads(done.stdout)["seed"] == 1
