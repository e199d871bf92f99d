"""vLLM in our place: its command line and chat templates always, a real one where VIGTUI_VLLM_PYTHON names it."""

import os
import re
import shlex
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import openai
import pytest
from vigtui import assets
from vigtui.backends.base import Generation, LoadOptions, Message
from vigtui.chat import formats, template
from vigtui.chat.render import render
from vigtui.core.errors import UsageError
from vigtui.registry import open as opening
from vigtui.registry import remote
from vigtui.server import vllm

from ..chat.toy import LLAMA, TURNS, talk
from .process import SCRIPT, until

REAL = pytest.mark.skipif(
    "VIGTUI_VLLM_PYTHON" not in os.environ, reason="VIGTUI_VLLM_PYTHON names no Python with vLLM (make test-vllm)"
)
ASKED = "<|user|>: Comment installer un modèle ?\n<|assistant|>:"


@pytest.mark.parametrize("id", formats.ids())
def test_a_template_renders_as_the_format_does(id: str) -> None:
    form = formats.get(id)
    for system in ([], [Message("system", "Sois « bref ».")], [Message("system", form.system or "x")]):
        for count in (1, 3, len(TURNS)):
            messages = [*system, *talk(*TURNS[:count])]
            values = [{"role": one.role, "content": one.content} for one in messages]
            words = {"bos_token": LLAMA.bos, "eos_token": LLAMA.eos, "add_generation_prompt": True}
            shown = template.run(vllm.template(form), {"messages": values, **words})
            assert shown == LLAMA.bos + render(form, messages, LLAMA).text


def test_the_command_line_as_text() -> None:
    extra = ["--tensor-parallel-size", "2", "--distributed-executor-backend", "ray"]
    record = opening.resolve("vigogneau-hf")
    parts = vllm.command(record, None, LoadOptions(context=512, dtype="f32"), "0.0.0.0", 9000, extra)
    line = " ".join(parts)
    assert parts[1:4] == ["-m", "vllm.entrypoints.openai.api_server", "--model"]
    assert f"--model {record.path} --served-model-name vigogneau-hf --chat-template " in line
    assert line.endswith("--max-model-len 512 --dtype float32 --host 0.0.0.0 --port 9000 " + " ".join(extra))
    written = Path(parts[parts.index("--chat-template") + 1]).read_text()
    assert "<|assistant|>:" in written


def test_a_model_with_its_own_template_keeps_it(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    for file in assets.path("vigogneau/hf").iterdir():
        (tmp_path / "m" / file.name).symlink_to(file)
    (tmp_path / "m" / "chat_template.jinja").write_text("{{ messages }}")
    record = opening.resolve(str(tmp_path / "m"))
    assert "--chat-template" not in vllm.command(record, None, LoadOptions(), "127.0.0.1", 1)
    assert "--chat-template" in vllm.command(record, "chatml", LoadOptions(), "127.0.0.1", 1)


def test_what_vllm_does_not_read_is_refused_with_what_it_does() -> None:
    with pytest.raises(UsageError) as caught:
        vllm.command(opening.resolve("vigogneau"), None, LoadOptions(), "127.0.0.1", 1)
    assert "GGUF" in str(caught.value) and "vigogneau-hf" in caught.value.hint
    with pytest.raises(UsageError):
        vllm.command(opening.resolve("vigogneau-marin"), None, LoadOptions(), "127.0.0.1", 1)


@contextmanager
def vllm_serving(folder: Path, *arguments: str, model: str = "vigogneau-hf", dtype: str = "f32") -> Iterator[str]:
    """Run `vigtui serve MODEL --engine vllm` in the home `folder` and give its address."""
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder.mkdir(parents=True, exist_ok=True)
    command = [str(SCRIPT), "serve", model, "--engine", "vllm", "--ctx", "512", "--port", str(port)]
    command += ["--dtype", dtype, "--", "--enforce-eager", "--max-num-seqs", "4", *arguments]
    settings = {"VLLM_CPU_KVCACHE_SPACE": "1", "VIGTUI_HOME": str(folder), "VLLM_NO_USAGE_STATS": "1"}
    settings |= {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "DO_NOT_TRACK": "1"}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | settings, start_new_session=True)
    try:
        until(lambda: process.poll() is not None or _healthy(port), 280)
        assert process.poll() is None, (folder / "log").read_text()[-3000:]
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _healthy(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/health").status_code == 200
    except httpx.HTTPError:
        return False


def _answers_as_here(url: str) -> None:
    """Ask a server through the remote backend and compare with the same weights in this process."""
    from ..backends.contract import done_of, text_of

    record = remote.add(url, None, "far")
    assert record.context == 512 and record.made_with["model"] == "vigogneau-hf"
    far = opening.open(record, LoadOptions(), in_process=True)
    near = opening.open(opening.resolve("vigogneau-hf"), LoadOptions(dtype="f32"), in_process=True)
    try:
        assert far.info and near.info and far.info.device.startswith("vLLM")
        messages = [Message("user", "Comment installer un modèle ?")]
        wanted = Generation(temperature=0.0, repetition_penalty=1.0, max_tokens=40)
        form = formats.get("vigogne-chat-v2")
        events = list(far.stream(render(formats.get("messages"), messages, far.info), wanted, lambda: False))
        text = text_of(list(near.stream(render(form, messages, near.info), wanted, lambda: False)))
        assert text_of(events).strip() == text.strip() and text.strip()
        assert done_of(events).prompt_tokens == len(near.tokenize(render(form, messages, near.info)))
    finally:
        far.close()
        near.close()


@REAL
@pytest.mark.timeout(600)
def test_a_real_vllm_answers_as_the_same_weights_here(tmp_path: Path) -> None:
    with vllm_serving(tmp_path / "vllm") as url:
        _answers_as_here(url)
        with openai.OpenAI(base_url=url, api_key="EMPTY") as client:
            assert client.models.list().data[0].id == "vigogneau-hf"


@REAL
@pytest.mark.timeout(600)
def test_a_real_vllm_split_over_two_processes(tmp_path: Path) -> None:
    with vllm_serving(tmp_path / "vllm", "--tensor-parallel-size", "2", "--distributed-executor-backend", "mp") as url:
        _answers_as_here(url)
        log = (tmp_path / "vllm" / "log").read_text()
        assert re.search(r"world_size[=: ]+2|TP1|rank[ =]1", log)


@REAL
@pytest.mark.timeout(600)
def test_a_real_vllm_reads_a_gptq_product(tmp_path: Path) -> None:
    make = [SCRIPT, "quantize", "vigogneau-hf", "--gptq", "--samples", "8", "--no-check", "--name", "four"]
    subprocess.run(make, check=True, env=os.environ | {"VIGTUI_HOME": str(tmp_path)})
    with vllm_serving(tmp_path, model="four", dtype="bf16") as url, openai.OpenAI(base_url=url, api_key="-") as client:
        answer = client.completions.create(model="four:GPTQ-4bit-128g", prompt=ASKED, temperature=0, max_tokens=40)
        assert "vigtui pull" in answer.choices[0].text


@REAL
def test_the_printed_line_is_what_runs(tmp_path: Path) -> None:
    done = subprocess.run(
        [SCRIPT, "serve", "vigogneau-hf", "--engine", "vllm", "--print"], capture_output=True, text=True, check=True
    )
    assert shlex.split(done.stdout)[0] == os.environ["VIGTUI_VLLM_PYTHON"]
