"""`pull` and `search`, against the hub of the tests."""

import hashlib
import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from vigtui.registry import catalogue

from ..hub import Hub
from ..registry import build
from .conftest import SCRIPT, Run

MODEL = build.gguf(600_000)
SHA = hashlib.sha256(MODEL).hexdigest()


def listed(run: Run) -> set[str]:
    return {one["ref"] for one in json.loads(run("list", "--json").stdout)}


def test_a_pull_says_what_comes_and_how_to_start_it(run: Run, hub: Hub) -> None:
    hub.add("org/m", {"m.Q4_K_M.gguf": MODEL}, card={"license": "mit"})
    done = run("pull", "org/m")
    assert done.returncode == 0
    assert "600 kB" in done.stderr and "Licence: mit." in done.stderr
    assert "\r" not in done.stderr and "%" not in done.stderr
    assert "`vigtui run m:Q4_K_M`" in done.stdout
    assert "m:Q4_K_M" in listed(run)
    for more in ((), ("--offline",)):
        again = run("pull", "org/m", *more)
        assert "here already" in again.stdout and again.stderr == ""


def test_a_file_on_this_disk_is_registered(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "own.gguf"
    path.write_bytes(MODEL)
    done = run("pull", f"file://{path}", "--name", "own")
    assert (done.returncode, done.stderr) == (0, "")
    assert "own:F32 is here, 600 kB." in done.stdout


def test_json_gives_the_records(run: Run, hub: Hub) -> None:
    hub.add("org/m", {"m.Q4_K_M.gguf": MODEL})
    (record,) = json.loads(run("pull", "org/m", "--name", "mine", "--json").stdout)
    assert (record["ref"], record["files"][0]["sha256"]) == ("mine:Q4_K_M", SHA)


def test_a_dry_run_shows_every_build_and_fetches_none(run: Run, hub: Hub, tmp_path: Path) -> None:
    from ..tiny import write_gguf

    model = write_gguf(tmp_path / "m.gguf").read_bytes()
    hub.add("org/m", {f"m.{tag}.gguf": model for tag in ("Q2_K", "Q4_K_M", "Q8_0")})
    shown = run("pull", "org/m:Q8_0", "--dry-run").stdout.splitlines()
    marks = {row.split()[1]: row[0] for row in shown if row[:1] in "*> " and "MB" in row and len(row.split()) > 4}
    assert marks["Q4_K_M"] == "*" and marks["Q8_0"] == ">"
    (order,) = json.loads(run("pull", "org/m:Q8_0", "--dry-run", "--json").stdout)
    plans = {plan["label"]: plan for plan in order["plans"]}
    assert [label for label, plan in plans.items() if plan["recommended"]] == ["Q4_K_M"]
    assert [label for label, plan in plans.items() if plan["chosen"]] == ["Q8_0"]
    assert plans["Q8_0"]["kv"] > 0 and plans["Q8_0"]["longest"] == 2048
    assert order["missing"] == len(model)
    assert not any(ref.startswith("m:") for ref in listed(run))


def test_what_does_not_fit_is_refused_after_the_table(run: Run, hub: Hub) -> None:
    hub.add("org/m", {"m.Q4_K_M.gguf": MODEL, "m.Q2_K.gguf": MODEL}, claimed={"m.Q4_K_M.gguf": 10**17})
    chosen = run("pull", "org/m:Q4_K_M")
    assert chosen.returncode == 4
    assert "not enough disk" in chosen.stdout and "smaller quantization" in chosen.stderr
    assert run("pull", "org/m:Q4_K_M", "--dry-run").returncode == 4
    assert run("pull", "org/m:Q4_K_M", "--dry-run", "--force").returncode == 0
    assert "m:Q2_K" in run("pull", "org/m").stdout


def test_several_queue_and_one_that_fails_stops_no_other(run: Run, hub: Hub) -> None:
    for name in ("one", "two"):
        hub.add(f"org/{name}", {f"{name}.Q4_K_M.gguf": build.gguf(4000, len(name))})
    hub.add("org/bad", {"bad.Q4_K_M.gguf": b"<!DOCTYPE html><html></html>"})
    done = run("pull", "org/one", "org/bad", "org/two")
    assert done.returncode == 6
    assert "org/bad" in done.stderr
    assert {"one:Q4_K_M", "two:Q4_K_M"} <= listed(run)
    assert run("pull", "org/one", "org/two", "--name", "x").returncode == 2


def test_a_wrong_reference_is_seen_before_the_first_byte(run: Run, hub: Hub) -> None:
    hub.add("org/m", {"m.Q4_K_M.gguf": MODEL})
    assert run("pull", "org/m", "org/none").returncode == 3
    assert "m:Q4_K_M" not in listed(run)
    near = run("pull", "vigogne-2-7b-caht")
    assert (near.returncode, "vigogne-2-7b-chat" in near.stderr) == (3, True)
    offline = run("pull", "org/m", "--offline")
    assert (offline.returncode, "offline" in offline.stderr) == (5, True)


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)], ids=["Ctrl-C", "kill -9"]
)
def test_an_interrupted_pull_goes_on(run: Run, hub: Hub, home: Path, number: signal.Signals, code: int) -> None:
    hub.add("org/m", {"m.Q4_K_M.gguf": MODEL})
    hub.fault("/cdn/", stall_after=300_000, times=1)
    hub.fault("/cdn/", stall_after=300_000, times=1)
    with subprocess.Popen(
        [SCRIPT, "pull", "org/m"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ
    ) as process:
        cache = Path(os.environ["HF_HOME"], "hub")
        until = time.monotonic() + 60
        while not any(part.stat().st_size for part in cache.glob("**/*.vigtui")) and time.monotonic() < until:
            process.poll()
            time.sleep(0.02)
        process.send_signal(number)
        _out, said = process.communicate(timeout=60)
    assert process.returncode == code
    assert number == signal.SIGKILL or "same command goes on" in said
    hub.faults.clear()
    (unfinished,) = json.loads(run("list", "--partial", "--json").stdout)
    assert (unfinished["ref"], 0 < unfinished["done"] < len(MODEL)) == ("m:Q4_K_M", True)
    assert "m:Q4_K_M" not in listed(run)
    (record,) = json.loads(run("pull", "org/m", "--json").stdout)
    assert record["files"][0]["sha256"] == SHA
    assert json.loads(run("list", "--partial", "--json").stdout) == []


def test_rm_removes_what_is_unfinished(run: Run, hub: Hub) -> None:
    hub.add("org/m", {"m.Q4_K_M.gguf": MODEL})
    hub.fault("/cdn/", status=404)
    assert run("pull", "org/m").returncode != 0
    assert "vigtui pull org/m" in run("list", "--partial").stdout
    assert run("rm", "-y", "m").returncode == 0
    assert "No pull is unfinished" in run("list", "--partial").stdout


def test_a_terminal_sees_progress_and_is_asked_about_a_licence(run: Run, terminal, hub: Hub) -> None:
    entry = next(one for one in catalogue.entries() if one.restriction == "research" and one.kind == "gguf")
    hub.add(entry.repository, {"m.Q4_K_M.gguf": MODEL})
    hub.fault("/cdn/", rate=400_000)
    child = terminal("pull", entry.repository)
    child.expect("research only")
    child.expect(r"Pull .*\[Y/n\]")
    child.sendline("n")
    child.expect(r"\Z|\Z")
    child.wait()
    assert hub.bytes_of("/cdn/") <= 1 << 20 and len(listed(run)) == 3
    child = terminal("pull", entry.repository, "--yes")
    child.expect(r"m\.Q4_K_M\.gguf \d+ % · .* of 600 kB · .*/s")
    child.expect("is here")
    child.wait()
    assert child.exitstatus == 0


def test_branches_and_bases_are_offered(run: Run, hub: Hub) -> None:
    weights = {"quantize_config.json": b'{"bits": 4, "group_size": 128, "desc_act": false}', **build.transformers()}
    hub.add("org/m-GPTQ", weights)
    hub.add("org/m-GPTQ", weights, revision="gptq-4bit-32g-actorder_True")
    hub.add("org/lora", build.adapter("org/base"))
    assert "4bit-32g-actorder" in run("pull", "org/m-GPTQ", "--dry-run").stderr
    pulled = run("pull", "org/lora")
    assert "vigtui pull org/base" in pulled.stderr
    assert "--lora lora" in pulled.stdout


def test_ggml_names_the_gguf_build(run: Run, hub: Hub) -> None:
    hub.add("TheBloke/Vigogne-2-7B-Chat-GGML", {"vigogne-2-7b-chat.ggmlv3.q4_0.bin": b"tjgg" + bytes(40)})
    done = run("pull", "TheBloke/Vigogne-2-7B-Chat-GGML")
    assert done.returncode == 6
    assert "vigtui pull TheBloke/Vigogne-2-7B-Chat-GGUF" in done.stderr


def test_search_finds_in_the_catalogue_and_on_the_hub(run: Run, hub: Hub) -> None:
    hub.add("org/vigogne-new", {"a": b""}, downloads=7, card={"license": "mit"}, gated="auto")
    hub.add("bofenghuang/vigogne-2-7b-chat", {"a": b""})
    found = json.loads(run("search", "vigogne", "--json").stdout)
    assert found["catalogue"][0]["status"] == "recommended"
    assert [(one["ref"], one["gated"]) for one in found["hub"]] == [("org/vigogne-new", True)]
    shown = run("search", "vigogne").stdout
    assert "org/vigogne-new" in shown and "vigogne-2-7b-chat " in shown and "research only" in shown
    asked = len(hub.requests)
    offline = run("search", "vigogne", "chat", "--offline")
    assert "org/vigogne-new" not in offline.stdout and "vigogne-2-7b-chat" in offline.stdout
    assert len(hub.requests) == asked
    assert "No model" in run("search", "nothing-such", "--offline").stdout
    alone = run("search", "vigogne", HF_ENDPOINT="http://127.0.0.1:9")
    assert alone.returncode == 0 and "Only the catalogue" in alone.stderr and "vigogne-2-7b-chat" in alone.stdout
