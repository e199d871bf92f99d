"""`convert`, `quantize` and `merge`, on the repository's own models and on a hub."""

import json
import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from ..hub import Hub
from .conftest import SCRIPT, Run

ROOT = Path(__file__).resolve().parents[2]
GUIDE, MARIN = ROOT / "assets" / "vigogneau" / "hf", ROOT / "assets" / "vigogneau" / "marin"
QUESTION = "What is a LoRA?"


def files(folder: Path) -> dict[str, bytes | Path]:
    return {path.name: path for path in folder.iterdir()}


def records(text: str) -> dict[str, dict[str, Any]]:
    return {one["ref"]: one for one in json.loads(text)}


def listed(run: Run) -> set[str]:
    return set(records(run("list", "--json").stdout))


def test_a_merge_becomes_a_model_that_answers_like_its_adapter(run: Run) -> None:
    done = run("merge", "vigogneau-hf", "--lora", "vigogneau-marin", "-q", "Q4_K_M")
    assert (done.returncode, done.stderr) == (0, "")
    assert "vigogneau-hf-marin:Q4_K_M is made" in done.stdout
    rows = {line.split("  ")[0] for line in done.stdout.splitlines()}
    assert {"perplexity", "KL divergence", "same first choice", "speed"} <= rows
    sailor = run("-p", QUESTION, "-m", "vigogneau-hf-marin").stdout
    applied = run("-p", QUESTION, "--lora", "vigogneau-marin").stdout
    assert sailor == applied != run("-p", QUESTION).stdout
    shown = json.loads(run("show", "vigogneau-hf-marin", "--json").stdout)
    assert shown["parents"] == ["vigogneau-hf", "vigogneau-marin"]
    report = shown["made_with"]["report"]
    assert all(text["top1_agreement"] > 0.7 for text in report["texts"].values())
    assert report["reference"].endswith("vigogneau-marin")
    assert run("rm", "-y", "vigogneau-hf-marin").returncode == 0


def test_several_types_at_once(run: Run) -> None:
    done = run("quantize", "vigogneau-hf", "-q", "q8_0,Q4_K_M", "-q", "Q4_K_M", "--no-check", "--json")
    made = records(done.stdout)
    assert list(made) == ["vigogneau-hf:Q8_0", "vigogneau-hf:Q4_K_M"]
    assert made["vigogneau-hf:Q8_0"]["size"] > made["vigogneau-hf:Q4_K_M"]["size"]
    assert all("vigogneau" in one["made_with"]["trial"]["text"] for one in made.values())
    again = run("quantize", "vigogneau-hf", "-q", "Q8_0")
    assert again.stdout.startswith("vigogneau-hf:Q8_0 is here already")
    shown = run("show", "vigogneau-hf:Q8_0").stdout
    assert "type Q8_0" in shown and "vigtui 0." in shown and "{" not in shown


def test_gptq(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "assets" / "calibration" / "fr.txt").read_text(encoding="utf-8")[:6000]
    (tmp_path / "text.txt").write_text(text, encoding="utf-8")
    done = run(
        "quantize", "vigogneau-hf", "--gptq", "--samples", "4", "--calibration", "text.txt", "--no-check", "--json",
        VIGTUI_HOME=os.path.relpath(os.environ["VIGTUI_HOME"]),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    made = records(done.stdout)["vigogneau-hf:GPTQ-4bit-128g"]
    assert (made["kind"], made["made_with"]["bits"], made["parents"]) == ("gptq", 4, ["vigogneau-hf"])
    assert "vigogneau" in made["made_with"]["trial"]["text"]
    assert json.loads((Path(made["files"][0]["path"]).parent / "quantize_config.json").read_text())["group_size"] == 128
    assert [path.name for path in tmp_path.iterdir()] == ["text.txt"]  # gptqmodel likes to leave logs


def test_the_source_is_pulled_first(run: Run, hub: Hub, tmp_path: Path) -> None:
    hub.add("org/guide", files(GUIDE) | {"guide.Q2_K.gguf": b"GGUF" + bytes(400)}, card={"license": "mit"})
    hub.add("org/sailor", files(MARIN))
    merge = ["merge", "org/guide", "--lora", "hf://org/sailor", "-q", "Q8_0"]
    plan = json.loads(run(*merge, "--dry-run", "--json").stdout)
    assert [pull["ref"] for pull in plan["pulls"]] == ["guide", "sailor"]
    assert plan["fetch"] > 9_000_000 and plan["fits"] and hub.bytes_of("/cdn/") < 1 << 20
    assert [stage["work"] for stage in plan["stages"]][:3] == ["merge", "convert", "quantize"]
    done = run(*merge, "--no-check")
    assert done.returncode == 0, done.stderr
    assert "guide-sailor:Q8_0 is made" in done.stdout and "Licence of guide: mit." in done.stderr
    assert {"guide", "sailor", "guide-sailor:Q8_0"} <= listed(run)
    fetched = hub.bytes_of("/cdn/")
    assert run("quantize", "org/guide", "-q", "Q4_0", "--no-check").returncode == 0
    assert hub.bytes_of("/cdn/") == fetched
    assert run("-p", QUESTION, "-m", "guide-sailor", "--format", "vigogne-chat-v2").stdout.startswith("Ahoy")


def test_nothing_is_pulled_that_nothing_can_be_made_of(run: Run, hub: Hub) -> None:
    config = json.loads((GUIDE / "config.json").read_text())
    strange = json.dumps(config | {"architectures": ["NewForCausalLM"], "model_type": "new"}).encode()
    hub.add("org/strange", files(GUIDE) | {"config.json": strange})
    hub.add("org/mute", {name: content for name, content in files(GUIDE).items() if "token" not in name})
    for arguments, said in (
        (["org/strange", "-q", "Q8_0"], "NewForCausalLM"),
        (["org/strange", "--gptq"], "architecture new"),
        (["org/strange", "--gptq", "--bits", "5"], "5 bits"),
        (["org/mute", "-q", "Q8_0"], "org/mute has no tokenizer"),
        (["vigogneau-hf", "--lora", "org/strange"], "org/strange is a whole model"),
    ):
        done = run("merge" if "--lora" in arguments else "quantize", *arguments)
        assert done.returncode in (2, 6) and said in done.stderr
    assert hub.bytes_of("/cdn/") < 1 << 20


def test_without_the_network(run: Run, hub: Hub) -> None:
    hub.add("org/guide", files(GUIDE))
    refused = run("quantize", "org/guide", "-q", "Q8_0", "--offline")
    assert refused.returncode == 5 and "--offline" in refused.stderr and not hub.requests
    assert run("pull", "org/guide", "-y").returncode == 0
    hub.requests.clear()
    done = run("quantize", "org/guide", "-q", "Q8_0", "--offline", "--no-check")
    assert (done.returncode, hub.requests) == (0, []), done.stderr


def test_a_conversion_tells_its_plan_first(run: Run, tmp_path: Path) -> None:
    plan = run("convert", "vigogneau-hf", "--type", "Q8_0", "--dry-run")
    assert plan.returncode == 0
    assert "convert Q8_0" in plan.stdout and "MB of disk" in plan.stdout and "vigogneau-hf:Q8_0 will lie" in plan.stdout
    assert listed(run) == {"vigogneau", "vigogneau-hf", "vigogneau-marin"}
    target = tmp_path / "guide.gguf"
    done = run("convert", str(GUIDE), "--output", str(target), "--name", "own:half", "--no-check", "--json")
    assert records(done.stdout)["own:half"]["files"][0]["path"] == str(target)
    assert run("-p", QUESTION, "-m", str(target)).stdout == run("-p", QUESTION).stdout


def test_meta_s_checkpoint_and_back(run: Run, tmp_path: Path) -> None:
    made = run("convert", "vigogneau-hf", "--to", "pth", "--output", str(tmp_path / "meta"), "--no-check")
    assert made.returncode == 0, made.stderr
    assert f"{tmp_path / 'meta'} is made" in made.stdout and (tmp_path / "meta" / "params.json").is_file()
    done = run("convert", str(tmp_path / "meta"), "--name", "back", "--no-check")
    assert done.returncode == 0, done.stderr
    assert run("-p", QUESTION, "-m", "back", "--format", "vigogne-chat-v2").stdout == run("-p", QUESTION).stdout


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["quantize", "vigogneau-hf"], 2, "-q"),
        (["quantize", "vigogneau-hf", "-q", "Q9"], 2, "Q9"),
        (["quantize", "vigogneau-hf", "-q", "Q8_0", "--bits", "4"], 2, "--bits"),
        (["quantize", "vigogneau-hf", "--gptq", "--pure"], 2, "--pure"),
        (["quantize", "vigogneau-hf", "--gptq", "-q", "Q8_0"], 2, "-q"),
        (["quantize", "vigogneau", "-q", "Q8_0"], 2, "--allow-requantize"),
        (["quantize", "nothing-such", "-q", "Q8_0"], 3, "nothing-such"),
        (["quantize", "", "-q", "Q8_0"], 2, "empty"),
        (["quantize", "vigogneau-hf", "-q", "Q8_0", "--threads", "100000"], 2, "--threads"),
        (["quantize", "vigogneau-hf", "-q", "Q8_0", "--calibration", "far.txt"], 2, "far.txt"),
        (["merge", "vigogneau-hf"], 2, "--lora"),
        (["merge", "vigogneau-hf", "--lora", "vigogneau-marin=much"], 2, "much"),
        (["merge", "vigogneau", "--lora", "vigogneau-marin"], 6, "merged"),
        (["merge", "vigogneau-hf", "--lora", "vigogneau-hf"], 2, "whole model"),
        (["convert", "vigogneau"], 2, "vigtui quantize"),
        (["convert", "vigogneau-hf", "--to", "x"], 2, "--to"),
        (["convert", str(ROOT / "README.md")], 6, "README.md"),
    ],
)
def test_refusals(run: Run, arguments: list[str], code: int, said: str) -> None:
    done = run(*arguments)
    assert done.returncode == code
    assert said in done.stderr and done.stdout == "" and done.stderr.count("\n") == 1


def test_a_name_that_is_taken_and_a_disk_that_is_full(run: Run, hub: Hub) -> None:
    assert run("quantize", "vigogneau-hf", "-q", "Q8_0", "--name", "mine", "--no-check").returncode == 0
    taken = run("quantize", "vigogneau-hf", "-q", "Q4_0", "--name", "mine:Q8_0", "--no-check")
    assert (taken.returncode, "--name" in taken.stderr) == (2, True)
    weights = files(GUIDE) | {"model.safetensors": b"x"}
    hub.add("org/huge", weights, claimed={"model.safetensors": 10**17})
    assert run("quantize", "org/huge", "-q", "Q8_0").returncode == 4


def test_ctrl_c_keeps_what_is_finished(run: Run, home: Path) -> None:
    command = [SCRIPT, "quantize", "vigogneau-hf", "-q", "Q8_0", "--no-check"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ
    ) as process:
        while process.poll() is None and not list((home / "cache" / "workshop").glob("*")):
            continue
        process.send_signal(signal.SIGINT)
        _out, said = process.communicate(timeout=60)
    assert process.returncode == 130 and "same command goes on" in said
    assert listed(run) == {"vigogneau", "vigogneau-hf", "vigogneau-marin"}
    assert run("quantize", "vigogneau-hf", "-q", "Q8_0", "--no-check").returncode == 0
    assert list((home / "cache" / "workshop").iterdir()) == []


def test_a_terminal_sees_stages(terminal: Any, home: Path) -> None:
    child = terminal("quantize", "vigogneau-hf", "-q", "Q8_0", "--keep", "--no-check")
    child.expect(r"1/2 convert F16")
    child.expect(r"2/2 quantize Q8_0 · \d+ %")
    child.expect("is kept")
    child.expect("vigogneau-hf:Q8_0 is made")
    child.wait()
    assert child.exitstatus == 0


def test_an_adapter_for_another_base(run: Run, tmp_path: Path) -> None:
    wrong = shutil.copytree(MARIN, tmp_path / "wrong")
    weights = (wrong / "adapter_model.safetensors").read_bytes()
    (wrong / "adapter_model.safetensors").write_bytes(weights.replace(b"layers.0", b"layers.9"))
    done = run("merge", "vigogneau-hf", "--lora", str(wrong))
    assert done.returncode == 6 and listed(run) == {"vigogneau", "vigogneau-hf", "vigogneau-marin"}
