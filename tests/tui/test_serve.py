"""`vigtui serve` and `vigtui add URL`: what they say, refuse and print."""

import json
import os
import shlex
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..server.process import Server, serving
from .conftest import Run


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("served"), "vigogneau", "--api-key", "opened") as server:
        yield server


def test_a_model_of_a_server_is_a_record_like_any_other(run: Run, server: Server, home: Path) -> None:
    url, keys = f"{server.url}/v1", {"SERVE_KEY": "opened"}
    closed = run("add", url)
    assert closed.returncode == 5 and "--key-env" in closed.stderr
    missing = run("add", url, "--model", "gpt-4", "--key-env", "SERVE_KEY", **keys)
    assert missing.returncode == 3 and "vigogneau" in missing.stderr
    done = run("add", url, "--name", "far", "--key-env", "SERVE_KEY", "--json", **keys)
    record = json.loads(done.stdout)
    assert (record["ref"], record["kind"], record["source"]) == ("far", "remote", url)
    assert record["made_with"] == {"model": "vigogneau", "key_env": "SERVE_KEY"} and record["context"] == 1024
    assert all(b"opened" not in path.read_bytes() for path in home.rglob("*") if path.is_file())

    near = run("-p", "Bonjour", "-n", "40").stdout
    assert near and run("-m", "far", "-p", "Bonjour", "-n", "40", "--temperature", "0", **keys).stdout == near
    summary = json.loads(run("-m", "far", "-p", "Bonjour", "-n", "4", "--json", **keys).stdout)
    assert summary["model"]["backend"] == "remote" and summary["finish_reason"] == "length"
    unset = run("-m", "far", "-p", "Bonjour")
    assert unset.returncode == 2 and "SERVE_KEY" in unset.stderr

    assert "far" in run("list").stdout and url in run("show", "far").stdout
    refused = run("serve", "far")
    assert refused.returncode == 2 and "server" in refused.stderr
    assert run("add", url, "--name", "vigogneau", "--key-env", "SERVE_KEY", **keys).returncode == 2
    assert run("rm", "-y", "far").returncode == 0 and "far" not in run("list").stdout


@pytest.mark.parametrize(
    ("arguments", "code", "word"),
    [
        (("serve", "nothing-such"), 3, "nothing-such"),
        (("serve", "vigogneau-marin"), 2, "adapter"),
        (("serve", "vigogneau", "vigogneau-hf", "--lora", "vigogneau-marin"), 2, "one model"),
        (("serve", "--format", "nothing-such"), 3, "nothing-such"),
        (("serve", "--api-key-env", "NO_SUCH_KEY"), 2, "NO_SUCH_KEY"),
        (("serve", "--api-key", "a", "--api-key-env", "HOME"), 2, "--api-key-env"),
        (("serve", "--keep-alive", "soon"), 2, "soon"),
        (("serve", "--host", "192.0.2.1"), 5, "192.0.2.1"),
        (("serve", "--", "--tensor-parallel-size", "2"), 2, "vllm"),
        (("serve", "--print"), 2, "vllm"),
        (("serve", "--engine", "vllm", "--print"), 2, "vigogneau-hf"),
        (("serve", "vigogneau-hf", "--engine", "vllm", "--lora", "x"), 2, "vLLM"),
        (("serve", "vigogneau-hf", "--engine", "vllm"), 7, "pip install vllm"),
        (("add", "http://127.0.0.1:1/v1"), 5, "127.0.0.1:1"),
        (("add", "ftp://host/v1"), 2, "http://host:8000/v1"),
        (("add", "http://127.0.0.1:1/v1", "--key-env", "sk-real key"), 2, "--key-env"),
        (("add", "model.gguf", "--model", "x"), 2, "--model"),
    ],
)
def test_bad_input_gets_one_sentence(run: Run, arguments: tuple[str, ...], code: int, word: str) -> None:
    done = run(*arguments)
    assert done.returncode == code, done.stderr
    assert word in done.stderr and done.stderr.count("\n") == 1 and not done.stdout


def test_a_port_that_is_taken(run: Run) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        done = run("serve", "--port", str(taken.getsockname()[1]))
    assert done.returncode == 5 and "--port" in done.stderr


def test_the_command_line_of_vllm(run: Run) -> None:
    ray = ("--tensor-parallel-size", "2", "--distributed-executor-backend", "ray")
    done = run("serve", "vigogneau-hf", "--engine", "vllm", "--print", "--ctx", "256", "--port", "9", "--api-key", "k",
               "--", *ray)  # fmt: skip
    parts = shlex.split(done.stdout)
    assert parts[-len(ray) :] == [*ray] and parts[parts.index("--max-model-len") + 1] == "256"
    assert os.path.isfile(parts[parts.index("--chat-template") + 1])
    assert "k" not in parts
    other = run("serve", "vigogneau-hf", "--engine", "vllm", "--print", VIGTUI_VLLM_PYTHON="/opt/v llm/python")
    assert shlex.split(other.stdout)[0] == "/opt/v llm/python"
