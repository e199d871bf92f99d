"""The edges of the command line: what it imports, what it says and the code that it ends with."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from vigtui.core import __version__, paths
from vigtui.tui.cli import commands
from vigtui.tui.cli.table import ALIASES, ANNOUNCED, COMMANDS

from .conftest import SCRIPT, Run

HEAVY = ("numpy", "textual", "llama_cpp", "huggingface_hub", "jinja2", "sqlite3", "gguf", "platformdirs")


@pytest.mark.parametrize("argument", ["--version", "--help"])
def test_version_and_help_import_little(argument: str, home: Path) -> None:
    code = (
        "import sys; from vigtui.tui.cli import main; sys.argv = ['vigtui', sys.argv[1]]; code = main();"
        "print(*sorted(sys.modules), file=sys.stderr); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code, argument], capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in done.stderr.split()}
    assert loaded.isdisjoint(HEAVY)
    assert argument == "--help" or "click" not in loaded


def test_version(run: Run) -> None:
    for arguments in (["--version"], ["--lang", "fr", "--version"]):
        done = run(*arguments)
        assert (done.returncode, done.stdout, done.stderr) == (0, f"vigtui {__version__}\n", "")


def test_help_lists_what_exists_and_nothing_else(run: Run) -> None:
    shown = run("--help")
    commands_shown = shown.stdout.partition("Commands:")[2].partition("Exit codes")[0]
    listed = {line.split()[0] for line in commands_shown.splitlines() if line.strip()}
    assert shown.returncode == 0
    assert listed == set(COMMANDS) - ALIASES
    for name in listed:
        assert run(name, "-h").stdout.startswith(f"Usage: vigtui {name}")


@pytest.mark.parametrize("command", ANNOUNCED)
def test_what_is_announced_says_so(run: Run, command: str) -> None:
    done = run(*command.split(), "something")
    assert done.returncode == 2
    assert done.stdout == ""
    assert f"`vigtui {command}`" in done.stderr
    assert "does not have it yet" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_command_mistyped(run: Run) -> None:
    assert "`vigtui quantize`" in run("quantise", "x").stderr
    assert "`vigtui -p TEXT`" in run("What is a LoRA?").stderr


def test_commands_are_those_of_the_design() -> None:
    names = "run pull search list ls ps show add adopt cp rm default convert quantize merge sessions personas formats"
    assert commands() == {*names.split(), "compare", "serve", "doctor", "bench", "completion"}


@pytest.mark.parametrize(
    "arguments",
    [
        ["nothing-such"],
        ["--no-such-flag"],
        ["-p"],
        ["-p", "hello", "--temperature", "hot"],
        ["-p", "hello", "--temperature", "-1"],
        ["-p", "hello", "--json", "--jsonl"],
        ["sessions"],
        ["-p", "hello", "--backend", "steam"],
        ["-p", "hello", "--lang", "tlh"],
        ["-p", "hello", "list"],
        ["run"],
        ["run", "vigogneau", "hello", "-p", "hello"],
        ["completion", "tcsh"],
        ["sessions", "rm"],
        [],
        ["--json"],
    ],
)
def test_usage(run: Run, arguments: list[str]) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("vigtui: ")
    assert done.stderr.count("\n") == 1


def test_an_unexpected_error_is_a_sentence_and_a_traceback_only_on_demand(run: Run, home: Path) -> None:
    home.parent.joinpath("vigtui").write_text("a file where a folder should be")
    done = run("add", __file__)
    assert done.returncode in (1, 6)
    assert "Traceback" not in done.stderr
    assert "Traceback" in run("show", "nothing-such", VIGTUI_DEBUG="1").stderr


def test_errors_carry_no_control_characters(run: Run) -> None:
    done = run("show", "\x1b]0;owned\x07\x1b[31mred")
    assert done.returncode == 3
    assert "\x1b" not in done.stderr
    assert "red" in done.stderr


def test_french_first(run: Run) -> None:
    french = run("--lang", "fr", "--help")
    assert french.returncode == 0
    assert run("--help", LANG="fr_FR.UTF-8").stdout == french.stdout
    assert run("--help", "--lang=fr").stdout == french.stdout


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(run: Run, shell: str) -> None:
    done = run("completion", shell)
    assert done.returncode == 0
    assert "_VIGTUI_COMPLETE" in done.stdout


def test_completion_completes_commands_and_models(run: Run) -> None:
    def complete(words: str) -> list[str]:
        shown = run(_VIGTUI_COMPLETE="bash_complete", COMP_WORDS=words, COMP_CWORD=str(words.count(" ")))
        return [line.partition(",")[2] for line in shown.stdout.splitlines()]

    assert complete("vigtui sess") == ["sessions"]
    assert "vigogneau" in complete("vigtui show vigo")


def test_doctor(run: Run, home: Path) -> None:
    left = paths.cache() / "workshop" / "half" / "merged.safetensors"
    left.parent.mkdir(parents=True)
    left.write_bytes(bytes(5_000_000))
    found = json.loads(run("doctor", "--json").stdout)
    assert found["versions"]["vigtui"] == __version__
    assert found["machine"]["cores"] >= 1
    assert found["backends"]["echo"] is None
    assert found["backends"]["transformers"] is None and found["backends"]["gptq"] is None
    assert found["folders"]["models"].startswith(str(home))
    shown = run("doctor")
    assert shown.returncode == 0
    assert "llama.cpp" in shown.stdout
    assert found["machine"]["unfinished_work"] == 5_000_000 and "5.0 MB" in shown.stdout
    assert str(left).startswith(found["folders"]["workshop"])


def test_a_closed_stdout_ends_quietly(home: Path) -> None:
    for arguments in ("--help", "--version", "doctor", "list"):
        command = f"{SCRIPT} {arguments} | true; exit ${{PIPESTATUS[0]}}"
        done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, env=os.environ)
        assert (done.returncode, done.stderr) == (0, "")
    done = subprocess.run(["bash", "-c", f"{SCRIPT} list >&- 2>&-"], env=os.environ)
    assert done.returncode == 0


def test_a_full_stdout_is_an_error(home: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    done = subprocess.run(
        ["bash", "-c", f"{SCRIPT} --help > /dev/full"], capture_output=True, text=True, env=os.environ
    )
    assert done.returncode == 4
    assert done.stderr.startswith("vigtui: ")
    assert done.stderr.count("\n") == 1
