"""The remote backend against another server than ours: `python -m llama_cpp.server`, where its packages are."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec

import httpx
import pytest
from vigtui import assets
from vigtui.backends.base import Backend, Generation, LoadOptions, Message, Notice
from vigtui.registry import open as opening
from vigtui.registry import remote

from ..backends.contract import GREEDY, chat, done_of, never, text_of
from .process import until

MISSING = [
    name for name in ("fastapi", "sse_starlette", "starlette_context", "pydantic_settings") if not find_spec(name)
]
pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"llama_cpp.server needs {', '.join(MISSING)}")


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    model = str(assets.path("vigogneau/vigogneau.gguf"))
    command = [sys.executable, "-m", "llama_cpp.server", "--model", model, "--model_alias", "guide", "--n_ctx", "1024"]
    log = tmp_path_factory.mktemp("peer") / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [*command, "--n_threads", "1", "--port", str(port)], stdout=out, stderr=out, env=os.environ | {"HOST": ""}
        )
    try:
        until(lambda: process.poll() is not None or _up(port))
        assert process.poll() is None, log.read_text()[-2000:]
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        process.wait(20)


def _up(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/v1/models").status_code == 200
    except httpx.HTTPError:
        return False


@pytest.fixture
def far(address: str) -> Iterator[Backend]:
    engine = opening.open(remote.add(address, None, "far"), LoadOptions(), in_process=True)
    yield engine
    engine.close()


def test_it_is_known_and_answers(far: Backend) -> None:
    from vigtui.chat import formats
    from vigtui.chat.render import render

    assert far.info and far.info.device.startswith("llama_cpp.server")
    prompt = render(formats.get("messages"), [Message("user", "Bonjour")], far.info)
    events = list(far.stream(prompt, Generation(temperature=0.0, max_tokens=8, num_beams=2), never))
    assert text_of(events) and done_of(events).finish_reason == "length"
    assert any("num_beams" in event.text for event in events if isinstance(event, Notice))


def test_a_text_is_continued_as_by_the_engine_here(far: Backend) -> None:
    near = opening.open(opening.resolve("vigogneau"), LoadOptions(), in_process=True)
    wanted = text_of(list(near.stream(chat("Bonjour"), GREEDY, never)))
    near.close()
    assert text_of(list(far.stream(chat("Bonjour"), GREEDY, never))) == wanted
