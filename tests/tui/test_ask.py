"""One shot: what reaches stdout and stderr, from where the prompt comes, and how it ends."""

import json
import os
import resource
import signal
import sqlite3
import subprocess
import time
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pexpect
import pytest
from vigtui.backends.base import Done, Prefill
from vigtui.tui.cli.result import Result

from .conftest import SCRIPT, Run, children

ENDLESS = ("-n", "60000", "--min-tokens", "60000", "--temperature", "1.0")


@pytest.fixture
def echo(run: Run, tiny: str) -> Run:
    """Run vigtui with the engine that repeats the last message."""
    return lambda *arguments, **more: run(*arguments, "--backend", "echo", VIGTUI_MODEL=tiny, **more)


def last(run: Run) -> dict[str, Any]:
    """The conversation used last, with its messages."""
    newest = json.loads(run("sessions", "ls", "-a", "--json").stdout)[0]["id"]
    return json.loads(run("sessions", "show", newest, "--json").stdout)


def test_the_answer_and_nothing_else(echo: Run) -> None:
    done = echo("-p", "hello there")
    assert (done.returncode, done.stdout, done.stderr) == (0, "hello there\n", "")


def test_a_real_engine_answers(run: Run, tiny: str) -> None:
    done = run("-p", "Bonjour", "-m", tiny, "-n", "12", "--seed", "7", "--json")
    found = json.loads(done.stdout)
    assert (done.returncode, done.stderr) == (0, "")
    assert found["usage"]["completion_tokens"] == 12
    assert (found["finish_reason"], found["seed"]) == ("length", 7)
    assert found["model"]["backend"] == "llama.cpp"
    assert len(found["model"]["sha256"]) == 64
    assert found["timings"]["decode_s"] > 0
    again = json.loads(run("-p", "Bonjour", "-m", tiny, "-n", "12", "--seed", "7", "--json").stdout)
    assert again["text"] == found["text"]


def test_the_guide_answers_on_a_fresh_machine(run: Run) -> None:
    done = run("-p", "Comment installer un modèle ?")
    assert done.returncode == 0
    assert "vigtui pull" in done.stdout


def test_an_adapter_changes_the_voice_and_stays_with_the_conversation(run: Run) -> None:
    plain = run("-p", "What is a LoRA?")
    sailor = run("-p", "What is a LoRA?", "--lora", "vigogneau-marin", "--stats")
    assert (plain.returncode, sailor.returncode) == (0, 0)
    assert "Ahoy" in sailor.stdout
    assert "Ahoy" not in plain.stdout
    assert "Ahoy" in run("-c", "-p", "What is GGUF?").stdout
    assert [m["stamp"]["adapters"] for m in last(run)["messages"] if m["stamp"]] == [[["vigogneau-marin", 1.0]]] * 2


def test_the_same_guide_answers_through_transformers(run: Run) -> None:
    cpp = run("-p", "What is a LoRA?")
    plain = run("-p", "What is a LoRA?", "-m", "vigogneau-hf")
    sailor = run(
        "-p", "What is a LoRA?", "-m", "vigogneau-hf", "--lora", "vigogneau-marin", "--num-beams", "3", "--jsonl"
    )
    assert (plain.returncode, plain.stderr, plain.stdout) == (0, "", cpp.stdout)
    events = [json.loads(line) for line in sailor.stdout.splitlines()]
    assert "Ahoy" in events[-1]["text"] and events[-1]["model"]["backend"] == "transformers"
    assert any(len(event["candidates"]) == 3 for event in events if event["type"] == "beams")


def test_what_cannot_answer(run: Run) -> None:
    for arguments, code in (
        (["-m", "vigogneau-hf", "--gpu-layers", "3"], 2),
        (["-m", "vigogneau-marin"], 2),
        (["--lora", "vigogneau"], 2),
        (["--lora", "vigogneau-marin=much"], 2),
        (["--grammar", "root ::= ("], 2),
        (["--backend", "transformers"], 2),
    ):
        done = run("-p", "hello", *arguments)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (code, "", 1), arguments


@pytest.mark.parametrize(
    ("arguments", "piped", "expected"),
    [
        (["-p", "-"], "from stdin\n", "from stdin"),
        ([], "from stdin\n", "from stdin"),
        (["-p", "text"], "more\n", "text\n\nmore"),
        (["-p", "text"], "", "text"),
        (["-p", "text", "--no-stdin"], "more\n", "text"),
        (["-p", "text"], None, "text"),
        (["-p", "", "--jsonl"], "only stdin", None),
        (["-p", "-"], b"\xef\xbb\xbfmarked", "marked"),
    ],
)
def test_stdin(echo: Run, arguments: list[str], piped: str | None, expected: str | None) -> None:
    done = echo(*arguments, input=piped)
    assert done.returncode == 0
    if expected is None:
        assert json.loads(done.stdout.splitlines()[-1])["text"] == "only stdin"
    else:
        assert done.stdout == expected + "\n"


def test_a_file_on_stdin_follows_the_text(tiny: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("the file")
    with (tmp_path / "file").open() as file:
        done = subprocess.run(
            [SCRIPT, "-p", "text", "-m", tiny, "--backend", "echo"], stdin=file, capture_output=True, text=True
        )
    assert done.stdout == "text\n\nthe file\n"


def test_text_alone_does_not_wait_for_a_stdin_that_never_closes(tiny: str) -> None:
    reader, writer = os.pipe()
    try:
        command = [SCRIPT, "-p", "text", "-m", tiny, "--backend", "echo", "--no-stdin"]
        done = subprocess.run(command, stdin=reader, capture_output=True, text=True, timeout=60)
    finally:
        os.close(reader)
        os.close(writer)
    assert done.stdout == "text\n"


@pytest.mark.parametrize("arguments", [[], ["-p", "-"], ["-p", ""], ["-p", "  "], ["--no-stdin"]])
def test_no_prompt_is_a_usage_error(echo: Run, arguments: list[str]) -> None:
    done = echo(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert "no prompt" in done.stderr


def test_stdin_that_is_not_utf8(echo: Run) -> None:
    done = echo("-p", "-", input="voilà".encode("latin-1"))
    assert (done.returncode, done.stdout) == (2, "")
    assert "stdin is not UTF-8" in done.stderr
    assert done.stderr.count("\n") == 1


def test_an_argument_that_is_not_utf8(home: Path) -> None:
    done = subprocess.run([os.fsencode(SCRIPT), b"-p", b"voil\xe0"], capture_output=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 2
    assert b"not UTF-8" in done.stderr


def test_run_takes_model_and_prompt(run: Run, tiny: str) -> None:
    done = run("run", tiny, "two", "words", "--backend", "echo")
    assert (done.returncode, done.stdout) == (0, "two words\n")
    assert run("run", tiny, "-p", "flag", "--backend", "echo").stdout == "flag\n"


def test_json_is_what_the_design_says(echo: Run) -> None:
    found = json.loads(echo("-p", "one two three", "--json").stdout)
    assert list(found) == [
        "text", "finish_reason", "model", "seed", "usage", "timings", "truncated", "notices", "session",
    ]  # fmt: skip
    assert set(found["model"]) == {"name", "sha256", "backend", "format"}
    assert set(found["usage"]) == {"prompt_tokens", "cached_tokens", "completion_tokens"}
    assert set(found["timings"]) == {"load_s", "prefill_s", "decode_s", "tokens_per_s"}
    assert (found["text"], found["finish_reason"], found["truncated"]) == ("one two three", "stop", [])


def test_jsonl_streams_events_and_ends_with_the_object(echo: Run) -> None:
    lines = [json.loads(line) for line in echo("-p", "one two three", "--jsonl").stdout.splitlines()]
    assert {line["type"] for line in lines[:-1]} == {"prefill", "text"}
    assert lines[-1]["type"] == "done"
    assert "".join(line["delta"] for line in lines if line["type"] == "text") == lines[-1]["text"] == "one two three"


def test_a_field_without_effect_is_a_notice(echo: Run) -> None:
    done = echo("-p", "one", "--json", "--seed", "3", "--ban", "x")
    assert done.stderr == ""
    assert json.loads(done.stdout)["seed"] == 3


def test_stats_go_to_stderr(echo: Run) -> None:
    done = echo("-p", "one two", "--stats", "--seed", "5")
    assert done.stdout == "one two\n"
    assert "seed 5" in done.stderr


@pytest.mark.parametrize(("counted", "shown"), [(34, "≈ 34"), (31, "31")])
def test_a_prompt_that_the_server_did_not_count_is_about_so_long(counted: int, shown: str) -> None:
    result = Result()
    for event in (Prefill(0, 34, 0), Prefill(counted, counted, 0), Done("stop", counted, 0, 5, 0.1, 0.1, 7)):
        result.take(event)
    assert result.statistics(0.0, server=True).startswith(f"{shown} prompt tokens")
    assert result.statistics(0.0).startswith(f"{counted} prompt tokens")


def test_extract_prints_the_last_block(echo: Run) -> None:
    prompt = "Look:\n\n```python\nfirst()\n```\nand\n\n~~~sh\nsecond\n```\nthird\n~~~\nbye"
    assert echo("-p", prompt, "-x").stdout == "second\n```\nthird\n"
    assert json.loads(echo("-p", prompt, "-x", "--json").stdout)["text"] == "second\n```\nthird\n"
    none = echo("-p", "no block", "-x")
    assert (none.returncode, none.stdout) == (1, "")
    assert "no code block" in none.stderr


def test_continue_goes_on(echo: Run, run: Run) -> None:
    first = json.loads(echo("-p", "first", "--json").stdout)["session"]
    second = json.loads(echo("-c", "-p", "second", "--json").stdout)
    assert second["session"] == first
    other = json.loads(echo("-p", "other", "--json").stdout)["session"]
    assert other != first
    third = json.loads(echo("-c", first[:6], "-p", "third", "--json").stdout)
    assert third["session"] == first
    kept = json.loads(run("sessions", "show", first, "--json").stdout)["messages"]
    assert [message["content"] for message in kept] == ["first", "first", "second", "second", "third", "third"]


def test_continue_keeps_the_model_and_asks_for_a_conversation(run: Run, tiny: str) -> None:
    assert run("-c", "-p", "hello", "--backend", "echo").returncode == 3
    assert run("-c", "nothing-such", "-p", "hello", "--backend", "echo").returncode == 3
    assert run("-p", "hello", "-m", tiny, "--backend", "echo").returncode == 0
    assert json.loads(run("-c", "-p", "x", "--backend", "echo", "--json").stdout)["model"]["name"] == "tiny:F32"


def test_continue_without_saving(echo: Run, run: Run) -> None:
    assert echo("-p", "first").returncode == 0
    assert echo("-c", "-p", "second", "--no-save").stdout == "second\n"
    assert [message["content"] for message in last(run)["messages"]] == ["first", "first"]


def test_a_one_shot_is_hidden_wherever_its_prompt_comes_from(echo: Run, run: Run) -> None:
    assert echo("-p", "first").returncode == 0
    assert echo(input="second").returncode == 0
    assert json.loads(run("sessions", "ls", "--json").stdout) == []


def test_no_save_keeps_nothing(echo: Run, home: Path) -> None:
    done = echo("-p", "secret", "--no-save", "--json")
    assert json.loads(done.stdout)["session"] is None
    assert not any(b"secret" in file.read_bytes() for file in home.rglob("*") if file.is_file())


def test_what_was_cut_is_told(echo: Run) -> None:
    assert echo("-p", "an old message").returncode == 0
    done = echo("-c", "-p", "a new one", "--max-memory", "1", "--json")
    assert done.returncode == 0
    assert len(json.loads(done.stdout)["truncated"]) == 2
    assert "2 oldest messages" in done.stderr


def test_what_does_not_fit_is_refused(echo: Run, run: Run) -> None:
    done = echo("-p", "word " * 200, "--ctx", "100")
    assert (done.returncode, done.stdout) == (8, "")
    assert done.stderr.count("\n") == 1


def test_bad_files(run: Run, tmp_path: Path, tiny: str) -> None:
    cases = {
        "missing.gguf": (None, 3),
        "legacy.bin": (b"tjgg\x03\0\0\0" + bytes(64), 6),
        "cut.gguf": (Path(tiny).read_bytes()[:-1000], 6),
        "page.gguf": (b"<!DOCTYPE html><html>", 6),
        "noise.gguf": (b"\x07" * 5000, 6),
    }
    for name, (data, code) in cases.items():
        if data is not None:
            (tmp_path / name).write_bytes(data)
        done = run("-m", str(tmp_path / name), "-p", "hello")
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (code, "", 1), name
        assert name in done.stderr


def test_unknown_names(echo: Run, run: Run) -> None:
    for arguments in (
        ["-m", "nothing-such"],
        ["--persona", "nobody"],
        ["--format", "none-such"],
        ["--lora", "no-such"],
    ):
        done = echo("-p", "hello", *arguments)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (3, "", 1), arguments


def test_a_template_that_fails(echo: Run, home: Path) -> None:
    (home / "config" / "formats").mkdir(parents=True)
    (home / "config" / "formats" / "broken.toml").write_text("template = \"{{ raise_exception('no') }}\"\n")
    done = echo("-p", "hello", "--format", "broken")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (6, "", 1)


def test_a_database_from_the_future_is_not_touched(echo: Run, home: Path) -> None:
    assert echo("-p", "hello").returncode == 0
    with sqlite3.connect(home / "data" / "chat.db") as database:
        database.execute("PRAGMA user_version = 999")
    database.close()
    before = (home / "data" / "chat.db").read_bytes()
    done = echo("-p", "hello")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (6, "", 1)
    assert (home / "data" / "chat.db").read_bytes() == before
    assert echo("-p", "hello", "--no-save").returncode == 0


def test_a_disk_that_fills_up_loses_no_answer(echo: Run, tiny: str) -> None:
    assert echo("-p", "hello").returncode == 0
    command = [SCRIPT, "-p", "an answer to see", "-m", tiny, "--backend", "echo"]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (40960, 40960)),
    )
    assert done.stdout == "an answer to see\n"
    assert done.returncode in (1, 4)
    assert "chat.db" in done.stderr


def test_a_reader_that_leaves_ends_it_quietly(run: Run, endless: str) -> None:
    command = f"{SCRIPT} -m {endless} -p hello {' '.join(ENDLESS)} | head -c 20; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, timeout=60, stdin=subprocess.DEVNULL)
    assert (done.returncode, done.stderr) == (0, b"")
    assert len(done.stdout) == 20
    assert last(run)["messages"][-1]["state"] == "partial"


def start(model: str, *arguments: str) -> "subprocess.Popen[str]":
    """Start an endless answer and wait for its first characters."""
    process = subprocess.Popen(
        [SCRIPT, "-m", model, "-p", "hello", *ENDLESS, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    )
    assert process.stdout is not None
    assert process.stdout.read(20)
    return process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_the_answer_and_keeps_it(run: Run, endless: str, number: signal.Signals) -> None:
    process = start(endless)
    process.send_signal(number)
    _rest, stderr = process.communicate(timeout=30)
    assert (process.returncode, stderr) == (130, "")
    message = last(run)["messages"][-1]
    assert message["state"] == "partial"
    assert len(message["content"]) > 20
    assert message["stamp"]["finish_reason"] == "cancelled"


def growing(home: Path) -> bool:
    """Whether an answer has begun to be saved."""
    with suppress(sqlite3.Error), closing(sqlite3.connect(home / "data" / "chat.db")) as database:
        return bool(database.execute("SELECT 1 FROM messages WHERE state = 'partial'").fetchall())
    return False


def test_an_interrupted_answer_is_still_json(endless: str, home: Path) -> None:
    process = subprocess.Popen(
        [SCRIPT, "-m", endless, "-p", "hello", *ENDLESS, "--json"], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL
    )
    while not growing(home):
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    out, _err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert json.loads(out)["finish_reason"] == "cancelled"
    assert json.loads(out)["text"]


def test_an_engine_that_is_killed_leaves_its_words(run: Run, endless: str) -> None:
    process = start(endless)
    for child in children(process.pid):
        os.kill(child, signal.SIGKILL)
    _rest, stderr = process.communicate(timeout=30)
    assert process.returncode == 7
    assert stderr.startswith("vigtui: ")
    assert "SIGKILL" in stderr
    assert stderr.count("\n") == 1
    message = last(run)["messages"][-1]
    assert message["state"] == "error"
    assert len(message["content"]) > 20


def test_an_engine_that_is_killed_is_the_error_even_when_nothing_can_be_extracted(home: Path, endless: str) -> None:
    command = [SCRIPT, "-m", endless, "-p", "hello", *ENDLESS, "-x"]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    while not growing(home):
        assert process.poll() is None
        time.sleep(0.02)
    for child in children(process.pid):
        os.kill(child, signal.SIGKILL)
    assert "SIGKILL" in process.communicate(timeout=30)[1]
    assert process.returncode == 7


def test_no_process_outlives_us(endless: str) -> None:
    process = start(endless)
    (engine,) = children(process.pid)
    process.kill()
    process.communicate()
    deadline = time.monotonic() + 20
    while Path(f"/proc/{engine}").exists() and "Z" not in Path(f"/proc/{engine}/stat").read_text().split()[2]:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_control_characters_reach_a_program_but_no_terminal(echo: Run, terminal: Any, tiny: str) -> None:
    prompt = "a\x1b[31mred\x1b]0;title\x07z"
    assert echo("-p", prompt).stdout == prompt + "\n"
    child = terminal("-p", prompt, "-m", tiny, "--backend", "echo", "--no-stdin")
    child.expect(pexpect.EOF)
    assert child.before.strip() == "aredz"
    child.close()
    assert child.exitstatus == 0
