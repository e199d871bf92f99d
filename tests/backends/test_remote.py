"""The remote backend against a running `vigtui serve`, and against a server that does everything wrong."""

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from vigtui.backends import create
from vigtui.backends.base import (
    Backend,
    Chosen,
    Done,
    Event,
    Generation,
    LoadOptions,
    Message,
    ModelFiles,
    Notice,
    Prefill,
    Prompt,
    Remote,
    Text,
)  # fmt: skip
from vigtui.backends.llama_cpp import LlamaCppBackend
from vigtui.backends.remote import RemoteBackend
from vigtui.core.errors import BackendError, ContextError, NetworkError, NotFoundError, UsageError, VigtuiError
from vigtui.core.progress import silent
from vigtui.registry import remote

from ..server.process import serving, until
from .contract import GREEDY, BackendContract, chat, chosen_of, done_of, never, text_of

HELLO = Prompt((("user: Bonjour\n", True),), (Message("user", "Bonjour"),))


def files(url: str, model: str = "vigogneau", key_env: str = "") -> ModelFiles:
    return ModelFiles("far", "remote", Path(), Remote(url, model, key_env))


def loaded(url: str, model: str = "vigogneau", key_env: str = "", **options: Any) -> RemoteBackend:
    engine = RemoteBackend()
    engine.load(files(url, model, key_env), LoadOptions(**options), silent)
    return engine


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a `vigtui serve` of the embedded model."""
    with serving(tmp_path_factory.mktemp("serve"), "vigogneau") as server:
        yield f"{server.url}/v1"


class TestRemote(BackendContract):
    """What every backend promises, where the server lets it: it counts with a tokenizer that is not ours."""

    @pytest.fixture
    def engine(self, address: str) -> Iterator[Backend]:
        engine = loaded(address)
        yield engine
        engine.close()

    def test_prefill_counts_up_to_the_whole_prompt(self, engine: Backend) -> None:
        events = self.answer(engine, chat("Qu'est-ce qu'un LoRA ?"))
        steps = [event for event in events if isinstance(event, Prefill)]
        assert steps[-1].done == steps[-1].total and steps[0].done == 0
        told, guessed = done_of(events).prompt_tokens, len(engine.tokenize(chat("Qu'est-ce qu'un LoRA ?")))
        assert told != guessed and told / 3 < guessed < told * 3

    def test_an_answer_is_the_engines_own(self, engine: Backend, guide_engine: LlamaCppBackend) -> None:
        near = text_of(self.answer(guide_engine, chat("Comment installer un modèle ?")))
        assert text_of(self.answer(engine, chat("Comment installer un modèle ?"))) == near

    def test_logprobs_are_the_engines_own(self, engine: Backend, guide_engine: LlamaCppBackend) -> None:
        wanted = replace(GREEDY, logprobs=1)
        for prompt in (chat("Bonjour"), HELLO):
            pieces = [event for event in self.answer(engine, prompt, wanted) if isinstance(event, Text)]
            assert pieces and all(event.logprobs and max(event.logprobs) <= 0 for event in pieces[:-1])
        near = [
            event.logprobs for event in self.answer(guide_engine, chat("Bonjour"), wanted) if isinstance(event, Text)
        ]
        far = [event.logprobs for event in self.answer(engine, chat("Bonjour"), wanted) if isinstance(event, Text)]
        assert near[0] and far[0] and abs(near[0][0] - far[0][0]) < 0.05
        assert not any(event.logprobs for event in self.answer(engine, HELLO) if isinstance(event, Text))
        for one in chosen_of(self.answer(engine, HELLO, replace(GREEDY, logprobs=20))):
            assert len(one.likely) == 20 and one.likely[0] == (one.token, one.logprob)

    def test_the_server_renders_the_messages(self, engine: Backend) -> None:
        turns = (Message("system", "Vous êtes un guide."), Message("user", "Bonjour"))
        events = self.answer(engine, Prompt((("unsent", True),), turns))
        assert text_of(events) and "far" not in text_of(events)
        assert done_of(events).prompt_tokens > done_of(self.answer(engine, HELLO)).prompt_tokens - 60


def test_it_runs_in_the_engine_process_alike(address: str) -> None:
    engine = create("remote")
    try:
        info = engine.load(files(address), LoadOptions(), silent)
        events = list(engine.stream(HELLO, GREEDY, never))
        assert info.context == 1024 and "chat" in engine.supports and "vigtui" in info.device
        assert text_of(events) and done_of(events).finish_reason in ("stop", "length")
    finally:
        engine.close()


def test_a_model_that_the_server_has_not(address: str) -> None:
    with pytest.raises(NotFoundError) as caught:
        loaded(address, "gpt-4")
    assert "vigogneau" in caught.value.hint and threading.active_count() < 20


# A server that does everything wrong

Answer = Callable[["Handler", dict[str, Any]], None]


class Handler(BaseHTTPRequestHandler):
    """Answers as `answers` of its server say, one after the other, the last for ever."""

    protocol_version = "HTTP/1.1"
    server: "Faulty"

    def do_GET(self) -> None:
        self.server.seen.append((self.path, dict(self.headers), {}))
        if self.path == "/v1/models":
            return self.reply(200, self.server.models)
        self.reply(404, {"error": {"message": "no such page"}})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.seen.append((self.path, dict(self.headers), body))
        answers = self.server.answers
        (answers.pop(0) if len(answers) > 1 else answers[0])(self, body)

    def reply(self, status: int, value: Any, **headers: str) -> None:
        data = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        for name, text in ({"Content-Type": "application/json", "Content-Length": str(len(data))} | headers).items():
            self.send_header(name.replace("_", "-"), text)
        self.end_headers()
        self.wfile.write(data)

    def begin(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True

    def say(self, delta: dict[str, Any], finish: str | None = None, **more: Any) -> None:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        chunk = {"id": "1", "object": "chat.completion.chunk", "created": 0, "model": "m", "choices": [choice]}
        self.raw(json.dumps(chunk | more))

    def raw(self, text: str) -> None:
        self.wfile.write(f"data: {text}\n\n".encode())
        self.wfile.flush()

    def log_message(self, *_arguments: Any) -> None:
        return


class Faulty(ThreadingHTTPServer):
    """`seen` keeps (path, headers, body) of each request."""

    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers: list[Answer] = [good]
        self.models: Any = {"object": "list", "data": [{"id": "m", "object": "model", "created": 0, "owned_by": "x"}]}
        self.seen: list[tuple[str, dict[str, str], dict[str, Any]]] = []
        self.gone = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def bodies(self) -> list[dict[str, Any]]:
        return [body for _path, _headers, body in self.seen if body]

    def handle_error(self, *_arguments: Any) -> None:
        return


def good(handler: Handler, _body: dict[str, Any]) -> None:
    handler.begin()
    handler.say({"role": "assistant", "content": ""})
    handler.say({"content": "Bon"})
    handler.say({"content": "jour"}, "stop")
    usage = {
        "prompt_tokens": 12,
        "completion_tokens": 2,
        "total_tokens": 14,
        "prompt_tokens_details": {"cached_tokens": 5},
    }
    handler.raw(json.dumps({"id": "1", "object": "chat.completion.chunk", "choices": [], "usage": usage}))
    handler.raw("[DONE]")


def status(code: int, message: str = "no", **headers: str) -> Answer:
    return lambda handler, _body: handler.reply(code, {"error": {"message": message}}, **headers)


@pytest.fixture
def faulty(monkeypatch: pytest.MonkeyPatch) -> Iterator[Faulty]:
    monkeypatch.setattr(RemoteBackend, "BACK_OFF", (0.0, 0.0))
    with Faulty() as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def far(faulty: Faulty) -> Iterator[RemoteBackend]:
    engine = loaded(faulty.url, "m")
    faulty.seen.clear()
    yield engine
    engine.close()


def answer(engine: RemoteBackend, generation: Generation = GREEDY) -> tuple[list[Event], VigtuiError | None]:
    events: list[Event] = []
    try:
        for event in engine.stream(HELLO, generation, never):
            events.append(event)
    except VigtuiError as error:
        return events, error
    return events, None


def notices(events: list[Event]) -> str:
    return "\n".join(event.text for event in events if isinstance(event, Notice))


def test_counts_are_the_servers(far: RemoteBackend, faulty: Faulty) -> None:
    events, error = answer(far)
    done = done_of(events)
    assert error is None and text_of(events) == "Bonjour" and done.finish_reason == "stop"
    assert (done.prompt_tokens, done.cached_tokens, done.completion_tokens) == (12, 5, 2)
    (body,) = faulty.bodies()
    assert body["messages"] == [{"role": "user", "content": "Bonjour"}] and body["stream_options"]["include_usage"]
    assert (body["temperature"], body["max_tokens"], body["seed"]) == (0.0, 24, done.seed)
    assert "≈" in notices(events)  # this server does not tell its context


@pytest.mark.parametrize("codes", [[429], [500, 503], [429, 502]])
def test_a_busy_server_is_asked_again(far: RemoteBackend, faulty: Faulty, codes: list[int]) -> None:
    faulty.answers = [*map(status, codes), good]
    events, error = answer(far)
    assert error is None and text_of(events) == "Bonjour" and len(faulty.bodies()) == len(codes) + 1
    assert all(str(code) in notices(events) for code in codes)


@pytest.mark.parametrize(
    ("code", "kind"), [(429, NetworkError), (500, NetworkError), (401, NetworkError), (403, NetworkError),
                       (404, NotFoundError), (400, BackendError), (418, BackendError)],
)  # fmt: skip
def test_refusals_have_their_exit_codes(far: RemoteBackend, faulty: Faulty, code: int, kind: type) -> None:
    faulty.answers = [status(code, "not today \x1b[31m" + "x" * 5000)]
    events, error = answer(far)
    assert isinstance(error, kind) and error.exit_code in (3, 5, 7) and not text_of(events)
    assert str(code) in error.message and "not today" in error.message
    assert "\x1b" not in str(error) and len(str(error)) < 700 and error.hint
    assert len(faulty.bodies()) == (3 if code in (429, 500) else 1)


def test_a_prompt_that_is_too_long_for_the_server(far: RemoteBackend, faulty: Faulty) -> None:
    faulty.answers = [status(400, "This model's maximum context length is 10 tokens.")]
    assert isinstance(answer(far)[1], ContextError)


@pytest.mark.parametrize("name", ["seed", "stream_options", "temperature"])
def test_a_field_that_is_refused_is_left_out_and_named(far: RemoteBackend, faulty: Faulty, name: str) -> None:
    def picky(handler: Handler, body: dict[str, Any]) -> None:
        bad = f"Unrecognized request argument supplied: {name}"
        handler.reply(400, {"error": {"message": bad}}) if name in body else good(handler, body)

    faulty.answers = [picky]
    events, error = answer(far)
    assert error is None and text_of(events) == "Bonjour" and name in notices(events)
    assert answer(far)[1] is None and len(faulty.bodies()) == 3  # it is not tried again


def test_a_longest_answer_under_its_other_name(far: RemoteBackend, faulty: Faulty) -> None:
    def modern(handler: Handler, body: dict[str, Any]) -> None:
        bad = "Unsupported parameter: 'max_tokens' is not supported, use 'max_completion_tokens' instead."
        handler.reply(400, {"error": {"message": bad}}) if "max_tokens" in body else good(handler, body)

    faulty.answers = [modern]
    assert answer(far)[1] is None
    assert faulty.bodies()[-1]["max_completion_tokens"] == 24


def stops_short(handler: Handler, _body: dict[str, Any]) -> None:
    handler.begin()
    handler.say({"content": "Bon"})


def malformed(handler: Handler, _body: dict[str, Any]) -> None:
    handler.begin()
    handler.say({"content": "Bon"})
    handler.raw('{"choices": [')


def complains(handler: Handler, _body: dict[str, Any]) -> None:
    handler.begin()
    handler.say({"content": "Bon"})
    handler.raw('{"error": {"message": "out of memory"}}')


def breaks(handler: Handler, _body: dict[str, Any]) -> None:
    handler.send_response(200)
    handler.send_header("Content-Type", "text/event-stream")
    handler.send_header("Content-Length", "100000")
    handler.end_headers()
    handler.say({"content": "Bon"})
    handler.close_connection = True


@pytest.mark.parametrize("fault", [stops_short, malformed, complains, breaks])
def test_what_came_before_a_failure_is_kept(far: RemoteBackend, faulty: Faulty, fault: Answer) -> None:
    faulty.answers = [fault, good]
    events, error = answer(far)
    assert text_of(events) == "Bon" and not any(isinstance(event, Done) for event in events)
    assert error is not None and error.exit_code in (5, 7) and len(faulty.bodies()) == 1
    assert "Error" not in error.message and "/v1" not in error.hint
    assert text_of(answer(far)[0]) == "Bonjour"


@pytest.mark.parametrize(
    "text",
    [
        "[]", "3", '{"choices": 3}', '{"choices": [3]}', '{"choices": [{"delta": 5}]}', "{}",
        '{"choices": [{"delta": {"content": {"a": 1}}}]}',
    ],
)  # fmt: skip
def test_chunks_that_make_no_sense(far: RemoteBackend, faulty: Faulty, text: str) -> None:
    def odd(handler: Handler, body: dict[str, Any]) -> None:
        handler.begin()
        handler.raw(text)
        handler.say({"content": "ok"}, "stop")

    faulty.answers = [odd, good]
    events, error = answer(far)
    assert text_of(events) == "ok" or (error is not None and error.exit_code in (5, 7))
    assert text_of(answer(far)[0]) == "Bonjour"


def test_reasoning_and_tools_are_named(far: RemoteBackend, faulty: Faulty) -> None:
    def thinks(handler: Handler, _body: dict[str, Any]) -> None:
        handler.begin()
        handler.say({"reasoning_content": "hm"})
        handler.say({"reasoning_content": "hm"})
        handler.say({"tool_calls": [{"index": 0, "id": "1", "function": {"name": "f", "arguments": "{}"}}]})
        handler.say({"content": "ok"}, "content_filter")

    faulty.answers = [thinks]
    events, error = answer(far)
    assert error is None and text_of(events) == "ok"
    said = notices(events)
    assert said.count("reasoning") == 1 and "tool" in said and "filter" in said


def test_logprobs_are_taken_where_they_are_offered(far: RemoteBackend, faulty: Faulty) -> None:
    def sure(handler: Handler, _body: dict[str, Any]) -> None:
        handler.begin()
        one = {"token": "ok", "logprob": -0.25, "bytes": None, "top_logprobs": []}
        choice = {"index": 0, "delta": {"content": "ok"}, "finish_reason": "stop", "logprobs": {"content": [one]}}
        handler.raw(json.dumps({"id": "1", "object": "chat.completion.chunk", "choices": [choice]}))

    faulty.answers = [sure]
    (piece,) = [event for event in answer(far)[0] if isinstance(event, Text)]
    assert piece.logprobs == (-0.25,)


def tells(logprobs: Any, text: bool) -> Answer:
    """An answer "ok" of one chunk with these logprobs, of a completion or of a chat."""

    def say(handler: Handler, _body: dict[str, Any]) -> None:
        handler.begin()
        said: dict[str, Any] = {"text": "ok"} if text else {"delta": {"content": "ok"}}
        choice = {"index": 0, "finish_reason": "stop", "logprobs": logprobs} | said
        handler.raw(json.dumps({"id": "1", "object": "chunk", "choices": [choice]}))

    return say


def test_alternatives_of_a_chat(far: RemoteBackend, faulty: Faulty) -> None:
    others = [("ok", -0.25, [111, 107]), ("\\xc3", -2, [0xC3]), ("no", -1.5, None), ("?", None, None)]
    top = [{"token": token, "logprob": value, "bytes": data} for token, value, data in others]
    faulty.answers = [tells({"content": [{**top[0], "top_logprobs": top}]}, text=False)]
    events, error = answer(far, replace(GREEDY, logprobs=2))
    assert error is None and chosen_of(events) == [Chosen("ok", -0.25, (("ok", -0.25), ("no", -1.5)))]
    assert chosen_of(answer(far, replace(GREEDY, logprobs=20))[0])[0].likely[2] == ("<0xC3>", -2.0)
    first, second = faulty.bodies()
    assert first["logprobs"] is True and (first["top_logprobs"], second["top_logprobs"]) == (2, 20)


def test_alternatives_of_a_completion(far: RemoteBackend, faulty: Faulty) -> None:
    columns = {"tokens": ["o", "k"], "token_logprobs": [-0.5, -3], "text_offset": [0, 1]}
    columns["top_logprobs"] = [{"u": -1.5, "o": -0.5}, {"u": -1e9, "l": -1.0, "k": -3}]
    faulty.answers = [tells(columns, text=True)]
    events = list(far.stream(chat("Bonjour"), replace(GREEDY, logprobs=7), never))
    assert chosen_of(events) == [
        Chosen("o", -0.5, (("o", -0.5), ("u", -1.5))),
        Chosen("k", -3.0, (("l", -1.0), ("k", -3.0), ("u", -9999.0))),
    ]
    assert done_of(events).completion_tokens == 2
    assert faulty.bodies()[-1]["logprobs"] == 5 and "5 alternatives" in notices(events)
    list(far.stream(chat("Bonjour"), GREEDY, never))
    assert "logprobs" not in faulty.bodies()[-1]


ODD_LOGPROBS: list[Any] = [
    3, [], {"content": 3}, {"content": [3]}, {"content": [{"token": "ok", "logprob": "low"}]},
    {"content": [{"token": "ok", "logprob": float("nan")}]}, {"content": [{"token": "ok", "logprob": 10**400}]},
    {"content": [{"token": "ok", "logprob": True, "top_logprobs": 3}]},
    {"tokens": ["ok"], "token_logprobs": None, "top_logprobs": [3]}, {"tokens": "ok", "token_logprobs": [None]},
]  # fmt: skip


@pytest.mark.parametrize("text", [False, True])
@pytest.mark.parametrize("told", ODD_LOGPROBS, ids=str)
def test_logprobs_that_make_no_sense(far: RemoteBackend, faulty: Faulty, told: Any, text: bool) -> None:
    faulty.answers = [tells(told, text)]
    events, error = answer(far, replace(GREEDY, logprobs=2))
    assert error is None and text_of(events) == "ok" and not chosen_of(events)


@pytest.mark.parametrize("name", ["logprobs", "top_logprobs"])
def test_logprobs_that_are_refused_are_left_out(far: RemoteBackend, faulty: Faulty, name: str) -> None:
    def picky(handler: Handler, body: dict[str, Any]) -> None:
        handler.reply(400, {"error": {"message": f"unknown {name}"}}) if name in body else good(handler, body)

    faulty.answers = [picky]
    events, error = answer(far, replace(GREEDY, logprobs=2))
    assert error is None and text_of(events) == "Bonjour" and f"{name} has no effect" in notices(events)
    _refused, asked = faulty.bodies()
    assert ("logprobs" in asked, "top_logprobs" in asked) == (name == "top_logprobs", False)


def test_what_a_stop_string_holds_back_keeps_its_tokens(far: RemoteBackend, faulty: Faulty) -> None:
    def say(handler: Handler, _body: dict[str, Any]) -> None:
        handler.begin()
        for text in ("a", "b", "c"):
            one = {"token": text, "logprob": -1.0, "bytes": None, "top_logprobs": []}
            choice = {"index": 0, "delta": {"content": text}, "logprobs": {"content": [one]}, "finish_reason": None}
            handler.raw(json.dumps({"id": "1", "object": "chunk", "choices": [choice]}))
        handler.say({}, "stop")

    faulty.answers = [say]
    pieces = [event for event in answer(far, replace(GREEDY, stop=("abd", "cd")))[0] if isinstance(event, Text)]
    assert [(one.delta, one.tokens, [each.token for each in one.chosen or ()]) for one in pieces] == [
        ("ab", 3, ["a", "b", "c"]),
        ("c", 0, []),
    ]


@pytest.mark.parametrize("begun", [False, True])
def test_stop_is_felt_while_the_server_says_nothing(far: RemoteBackend, faulty: Faulty, begun: bool) -> None:
    def slow(handler: Handler, _body: dict[str, Any]) -> None:
        handler.begin()
        if begun:
            handler.say({"content": "Bon"})
        handler.connection.settimeout(30)
        if not handler.connection.recv(1):  # the client closes
            faulty.gone.set()

    faulty.answers = [slow, good]
    asked = threading.Event()
    threading.Timer(0.3, asked.set).start()
    events = list(far.stream(HELLO, GREEDY, asked.is_set))
    assert done_of(events).finish_reason == "cancelled" and text_of(events) == ("Bon" if begun else "")
    assert faulty.gone.wait(10)
    assert text_of(answer(far)[0]) == "Bonjour"


def test_a_server_that_ignores_stop_strings(far: RemoteBackend) -> None:
    events, error = answer(far, replace(GREEDY, stop=("njo",)))
    assert error is None and text_of(events) == "Bo" and done_of(events).finish_reason == "stop"


def test_a_server_that_sends_without_end(far: RemoteBackend, faulty: Faulty, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vigtui.backends.connection.MOST_BYTES", 1 << 20)

    def flood(handler: Handler, _body: dict[str, Any]) -> None:
        handler.begin()
        while True:
            handler.wfile.write(b"x" * 65536)

    faulty.answers = [flood]
    error = answer(far)[1]
    assert isinstance(error, BackendError) and "without end" in error.message


def test_the_key_goes_only_where_it_should(faulty: Faulty, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"OPENAI_API_KEY": "sk-cloud", "OPENAI_ORG_ID": "org-1", "OPENAI_PROJECT_ID": "p-1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MY_KEY", "sk-mine-0123456789")
    loaded(faulty.url, "m").close()
    assert "sk-cloud" not in str(faulty.seen) and "org-1" not in str(faulty.seen) and "p-1" not in str(faulty.seen)
    assert os.environ["OPENAI_API_KEY"] == "sk-cloud"
    engine = loaded(faulty.url, "m", "MY_KEY")
    faulty.answers = [status(401, "Incorrect key sk-mine-0123456789 given")]
    error = answer(engine)[1]
    engine.close()
    sent = {name.lower(): value for name, value in faulty.seen[-1][1].items()}
    assert sent["authorization"] == "Bearer sk-mine-0123456789"
    assert error is not None and "sk-mine" not in str(error) and "MY_KEY" in error.hint
    monkeypatch.delenv("MY_KEY")
    with pytest.raises(UsageError) as caught:
        loaded(faulty.url, "m", "MY_KEY")
    assert "MY_KEY" in str(caught.value)


@pytest.mark.parametrize("url", ["ftp://a/v1", "a/v1", "http://", "http://u:secret@h/v1", "http://h:port/v1"])
def test_addresses_that_are_none(url: str) -> None:
    with pytest.raises(UsageError) as caught:
        loaded(url, "m")
    assert "http://host:8000/v1" in caught.value.hint


def test_a_server_that_is_down_and_one_that_is_none(faulty: Faulty) -> None:
    with pytest.raises(NetworkError) as caught:
        loaded("http://127.0.0.1:1/v1")
    assert caught.value.exit_code == 5
    for models in (b"<html>", {"data": [1, None, {"id": 3}]}, {"data": "x"}, [], {"data": [{"id": "m", "meta": 3}]}):
        faulty.models = models
        try:
            loaded(faulty.url, "m").close()
        except VigtuiError as error:
            assert error.exit_code in (3, 5, 7) and "Error" not in error.message


def test_a_server_without_a_model_is_not_added(faulty: Faulty) -> None:
    faulty.models = {"object": "list", "data": []}
    with pytest.raises(NotFoundError) as caught:
        remote.add(faulty.url, None)
    assert "--model" not in caught.value.hint
    faulty.models["data"] = [{"id": "m"}, {"id": "n"}]
    with pytest.raises(NotFoundError) as caught:
        remote.add(faulty.url, None)
    assert "--model: m, n" in caught.value.hint


@pytest.mark.parametrize(
    ("facts", "name", "context"),
    [
        ({"owned_by": "vllm", "max_model_len": 512}, "vLLM", 512),
        ({"owned_by": "llamacpp", "meta": {"n_ctx_train": 256}}, "llama-server", 256),
        ({"owned_by": "library"}, "Ollama", 8192),
        ({"owned_by": "organization_owner"}, "LM Studio", 8192),
        ({"owned_by": "me"}, "llama_cpp.server", 8192),
        ({"owned_by": "x", "context_length": True}, "OpenAI API", 8192),
    ],
)
def test_servers_are_known_by_name(faulty: Faulty, facts: dict[str, Any], name: str, context: int) -> None:
    faulty.models = {"object": "list", "data": [{"id": "m", "object": "model", "created": 0, **facts}]}
    engine = loaded(faulty.url, "m")
    try:
        assert engine.info and engine.info.device.startswith(name) and engine.info.context == context
        wanted = replace(GREEDY, top_k=5, min_p=0.2, repetition_penalty=1.3, no_repeat_ngram_size=2)
        events, error = answer(engine, wanted)
        assert error is None and "no_repeat_ngram_size has no effect" in notices(events)
        body = faulty.bodies()[-1]
        knows_k = name in ("vLLM", "llama-server", "LM Studio", "llama_cpp.server")
        assert ("top_k" in body) == knows_k == ("top_k has no effect" not in notices(events))
        assert body.get("repetition_penalty" if name == "vLLM" else "repeat_penalty", 1.3 if not knows_k else 0) == 1.3
    finally:
        engine.close()


def test_nothing_is_left_running(faulty: Faulty) -> None:
    before = threading.active_count()
    for _turn in range(5):
        loaded(faulty.url, "m").close()
    began = time.monotonic()
    until(lambda: threading.active_count() <= before + 2 or time.monotonic() - began > 10)
    assert threading.active_count() <= before + 2
