"""`vigtui serve` as its clients see it: the real openai client, and requests that no good client sends."""

import json
import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import pytest
from vigtui.backends.base import Generation, LoadOptions, Message, Prompt, Text
from vigtui.chat import formats
from vigtui.chat.render import render
from vigtui.registry import open as opening

from .process import Server, serving, until

ASK = [{"role": "user", "content": "Comment installer un modèle ?"}]
FREE: dict[str, Any] = {"messages": ASK, "max_tokens": 60000, "min_tokens": 60000, "stream": True}


def said(client: openai.OpenAI, **values: Any) -> Any:
    return client.chat.completions.create(**{"model": "vigogneau", "messages": ASK, **values})


def direct(messages: list[Message], generation: Generation) -> str:
    """Give what llama.cpp answers in this process."""
    record = opening.resolve("vigogneau")
    engine = opening.open(record, LoadOptions(), in_process=True)
    try:
        assert engine.info
        prompt = render(formats.get("vigogne-chat-v2"), messages, engine.info)
        events = engine.stream(prompt, generation.over(Generation(**record.generation)), lambda: False)
        return "".join(event.delta for event in events if isinstance(event, Text)).strip()
    finally:
        engine.close()


def test_the_calls_of_the_vigogne_blog(client: openai.OpenAI) -> None:
    model = client.models.list().data[0].id
    answer = client.chat.completions.create(
        model=model, messages=[{"role": "user", "content": "Parle-moi de toi-même."}]
    )
    assert model == "vigogneau" and "vigogneau" in (answer.choices[0].message.content or "")
    assert answer.choices[0].finish_reason == "stop" and client.models.retrieve(model).id == model


def test_an_answer_is_that_of_the_engine(client: openai.OpenAI) -> None:
    text = said(client, max_tokens=40).choices[0].message.content
    assert text.strip() == direct([Message("user", ASK[0]["content"])], Generation(max_tokens=40))


def test_a_stream_equals_the_whole(client: openai.OpenAI) -> None:
    whole = said(client)
    chunks = list(said(client, stream=True, stream_options={"include_usage": True}))
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == whole.choices[0].message.content
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "stop"
    assert chunks[-1].usage.total_tokens == whole.usage.total_tokens and not chunks[-1].choices
    assert all(not chunk.usage for chunk in said(client, stream=True))


def test_completions_continue_a_text(client: openai.OpenAI) -> None:
    prompt = "<|user|>: Bonjour\n<|assistant|>:"
    whole = client.completions.create(model="vigogneau", prompt=prompt, max_tokens=12)
    parts = list(client.completions.create(model="vigogneau", prompt=[prompt], max_tokens=12, stream=True))
    assert whole.choices[0].text and whole.choices[0].finish_reason == "length"
    assert "".join(part.choices[0].text for part in parts) == whole.choices[0].text
    assert whole.usage and whole.usage.completion_tokens == 12


@pytest.mark.parametrize("many", [False, True])
def test_stop_strings_end_an_answer(client: openai.OpenAI, many: bool) -> None:
    whole = said(client).choices[0].message.content
    stop = whole[len(whole) // 2 :][:4]
    cut = said(client, stop=["never met", stop] if many else stop).choices[0]
    assert cut.message.content == whole[: whole.index(stop)] and cut.finish_reason == "stop"


def test_a_seed_is_replayed(client: openai.OpenAI) -> None:
    hot = {"temperature": 1.5, "max_tokens": 24}
    first = said(client, seed=7, **hot).choices[0].message.content
    said(client, seed=8, messages=[{"role": "user", "content": "Bonjour"}], **hot)
    assert said(client, seed=7, **hot).choices[0].message.content == first
    drawn = said(client, **hot)
    assert said(client, seed=drawn.seed, **hot).choices[0].message.content == drawn.choices[0].message.content


def test_json_schema_and_json_object(client: openai.OpenAI) -> None:
    shape = {
        "type": "object",
        "properties": {"a": {"enum": ["b", "c"]}},
        "required": ["a"],
        "additionalProperties": False,
    }
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": shape}}
    assert json.loads(said(client, response_format=form).choices[0].message.content)["a"] in ("b", "c")
    first = said(client, response_format={"type": "json_object"}, max_tokens=8).choices[0].message.content
    assert first.startswith("{")


def test_extra_fields_work_and_unknown_ones_are_ignored(client: openai.OpenAI) -> None:
    extra = {"top_k": 1, "min_p": 0.1, "repetition_penalty": 1.0, "nothing_such": {"a": 1}}
    greedy = said(client, max_tokens=30).choices[0].message.content
    assert (
        said(client, temperature=1.5, max_completion_tokens=30, extra_body=extra).choices[0].message.content == greedy
    )


def test_logprobs_are_those_of_the_model(client: openai.OpenAI) -> None:
    prompt = Prompt((("<|user|>: Bonjour\n<|assistant|>:", True),))
    engine = opening.open(opening.resolve("vigogneau"), LoadOptions(), in_process=True)
    ids = engine.tokenize(prompt)
    *_rest, logits = engine.score(ids)
    engine.close()
    whole = client.completions.create(model="vigogneau", prompt=prompt.text, max_tokens=5, logprobs=1).choices[0]
    assert whole.logprobs and whole.logprobs.token_logprobs and len(whole.logprobs.token_logprobs) == 5
    first = -float(np.log(np.exp(logits - logits.max()).sum()))
    assert whole.logprobs.token_logprobs[0] == pytest.approx(first, abs=0.05)
    assert "".join(whole.logprobs.tokens or ()) == whole.text

    spoken = said(client, logprobs=True, max_tokens=5)
    values = [one.logprob for one in spoken.choices[0].logprobs.content]
    assert len(values) == 5 and all(value <= 0 for value in values)
    assert all(one.top_logprobs == [] for one in spoken.choices[0].logprobs.content)
    assert said(client, max_tokens=2).choices[0].logprobs is None


def test_alternatives_of_a_chat(client: openai.OpenAI) -> None:
    wanted = {"logprobs": True, "top_logprobs": 3, "max_tokens": 8, "temperature": 0.0}
    whole = said(client, **wanted)
    streamed = [c.choices[0].logprobs for c in said(client, stream=True, **wanted)]
    tokens = whole.choices[0].logprobs.content
    assert "".join(one.token for one in tokens).strip() == whole.choices[0].message.content.strip()
    for one in tokens:
        assert [(other.token, other.logprob) for other in one.top_logprobs[:1]] == [(one.token, one.logprob)]
        assert len(one.top_logprobs) == 3 and bytes(one.bytes).decode() == one.token
    again = [one for found in streamed if found for one in found.content]
    assert [one.token for one in again] == [one.token for one in tokens] and len(tokens) == 8
    assert [one.logprob for one in again] == pytest.approx([one.logprob for one in tokens], abs=0.05)
    assert "notices" not in whole.model_extra


def test_alternatives_of_a_completion(noise: Server) -> None:
    wanted: dict[str, Any] = {"model": "endless", "prompt": "<|user|>: Bonjour\n<|assistant|>:", "max_tokens": 60}
    wanted |= {"temperature": 0.0, "extra_body": {"repetition_penalty": 1.0}}
    with noise.client() as client:
        whole = client.completions.create(**wanted, logprobs=5).choices[0]
        parts = list(client.completions.create(**wanted, logprobs=5, stream=True))
        plain = client.completions.create(**wanted, logprobs=0).choices[0].logprobs
    found = whole.logprobs
    assert found and found.tokens and found.text_offset and found.top_logprobs and found.token_logprobs
    assert len(found.tokens) == len(found.text_offset) == len(found.top_logprobs) == len(found.token_logprobs) == 60
    halves = [token for token in found.tokens if token.startswith("<0x")]
    assert halves  # this model writes half characters
    columns = (found.tokens, found.text_offset, found.token_logprobs, found.top_logprobs)
    for token, place, value, table in zip(*columns, strict=True):
        assert token in halves or whole.text.startswith(token, place)
        assert len(table) == 5 and max(table.values()) == table[token] == value
    assert [place for part in parts if (one := part.choices[0].logprobs) for place in one.text_offset or ()] == list(
        found.text_offset
    )
    assert plain and plain.token_logprobs and len(plain.token_logprobs) == 60 and plain.top_logprobs is None


@pytest.mark.parametrize(("value", "status"), [(6, 400), (-1, 400), (True, 400), ("3", 400), (False, 200), (5, 200)])
def test_a_completion_has_five_alternatives_at_most(guide: Server, value: Any, status: int) -> None:
    answer = guide.post({"prompt": "Bonjour", "max_tokens": 1, "logprobs": value}, "/v1/completions")
    assert answer.status_code == status
    if status == 400:
        assert answer.json()["error"]["param"] == "logprobs"
    else:
        assert bool(answer.json()["choices"][0]["logprobs"]) is bool(value)


def test_the_next_turn_reads_only_what_is_new(client: openai.OpenAI) -> None:
    first = said(client)
    turns = [
        *ASK,
        {"role": "assistant", "content": first.choices[0].message.content},
        {"role": "user", "content": "Merci"},
    ]
    details = said(client, messages=turns, max_tokens=4).usage.prompt_tokens_details
    assert details.cached_tokens >= first.usage.prompt_tokens


def test_what_a_user_types_is_no_control_token(guide: Server, client: openai.OpenAI) -> None:
    engine = opening.open(opening.resolve("vigogneau"), LoadOptions(), in_process=True)
    assert engine.info
    text = f"a {engine.info.eos} b"
    prompt = render(formats.get("vigogne-chat-v2"), [Message("user", text)], engine.info)
    wanted, meant = len(engine.tokenize(prompt)), len(engine.tokenize(type(prompt)(((prompt.text, True),))))
    engine.close()
    parts = [{"type": "text", "text": text}]
    usage = said(client, messages=[{"role": "user", "content": parts}], max_tokens=1).usage
    assert usage.prompt_tokens == wanted != meant


BAD: list[tuple[dict[str, Any], str]] = [
    ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools"),
    ({"functions": [{"name": "f"}]}, "functions"),
    ({"n": 2}, "n"),
    ({"logit_bias": {"1": 2}}, "logit_bias"),
    ({"messages": []}, "messages"),
    ({"messages": "hello"}, "messages"),
    ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0]"),
    (
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:"}}]}]},
        "messages[0]",
    ),
    ({"messages": [{"role": "user", "content": "\ud800"}]}, "messages[0]"),
    ({"temperature": "hot"}, "temperature"),
    ({"temperature": True}, "temperature"),
    ({"max_tokens": 1.5}, "max_tokens"),
    ({"seed": 10**30}, "seed"),
    ({"stop": [1]}, "stop"),
    ({"stream": "yes"}, "stream"),
    ({"model": 3}, "model"),
    ({"logprobs": 5}, "logprobs"),
    ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
    ({"logprobs": True, "top_logprobs": "3"}, "top_logprobs"),
    ({"top_logprobs": 3}, "top_logprobs"),
    ({"response_format": {"type": "json_schema"}}, "response_format"),
]


@pytest.mark.parametrize(("change", "param"), BAD, ids=lambda value: value if isinstance(value, str) else "")
def test_bad_values_are_refused_with_the_field(guide: Server, change: dict[str, Any], param: str) -> None:
    content = json.dumps({"messages": ASK, **change})
    answer = httpx.post(
        f"{guide.url}/v1/chat/completions", content=content, headers={"Content-Type": "application/json"}
    )
    error = answer.json()["error"]
    assert (answer.status_code, error["param"], error["type"]) == (400, param, "invalid_request_error")
    assert error["message"]


@pytest.mark.parametrize(
    "change",
    [
        {"temperature": -1}, {"top_p": 2}, {"max_tokens": 0}, {"messages": [{"role": "assistant", "content": "a"}]},
        {"response_format": {"type": "json_schema", "json_schema": {"schema": {"$ref": "http://x"}}}},
    ],
)  # fmt: skip
def test_values_out_of_range_are_refused(guide: Server, change: dict[str, Any]) -> None:
    answer = guide.post({"messages": ASK, **change})
    assert answer.status_code == 400 and answer.json()["error"]["message"]


def test_errors_have_the_classes_that_the_client_knows(guide: Server, client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        said(client, model="gpt-4")
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt-4")
    for words in (5000, 2_000_000):
        with pytest.raises(openai.BadRequestError) as long:
            said(client, messages=[{"role": "user", "content": "mot " * words}])
        assert long.value.code == "context_length_exceeded"
    assert said(client, model="", max_tokens=1).model == "vigogneau"
    for stream in (False, True):
        with pytest.raises(openai.BadRequestError):
            said(client, stream=stream, tools=[{"type": "function", "function": {"name": "f"}}])
    assert httpx.get(f"{guide.url}/v1/embeddings").status_code == 404
    assert httpx.get(f"{guide.url}/v1/chat/completions").status_code == 405


def test_bodies_that_are_too_long_or_no_json(guide: Server) -> None:
    url, kind = f"{guide.url}/v1/chat/completions", {"Content-Type": "application/json"}
    assert httpx.post(url, content=b"{", headers=kind).status_code == 400
    assert httpx.post(url, content=b"[" * 100_000, headers=kind).status_code == 400
    assert httpx.post(url, content=b"[]", headers=kind).status_code == 400
    assert httpx.post(url, content=b"{}", headers={"Content-Type": "text/plain"}).status_code == 415
    assert httpx.post(url, content=b"x" * (17 << 20), headers=kind).status_code == 413

    def parts() -> Iterator[bytes]:
        yield from [b"x" * (1 << 20)] * 20

    assert httpx.post(url, content=parts(), headers=kind).status_code == 413
    assert guide.post({"messages": ASK, "max_tokens": 1}).status_code == 200


@pytest.mark.parametrize("name", ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "8.8.8.8", ""])
def test_a_strange_host_header_is_refused(guide: Server, name: str) -> None:
    assert httpx.get(f"{guide.url}/v1/models", headers={"Host": name}).status_code == 403


def test_health_metrics_and_the_log(guide: Server) -> None:
    assert httpx.get(f"{guide.url}/health", headers={"Host": "localhost"}).json() == {"status": "ok"}
    before = guide.metric("completion_tokens_total")
    assert guide.post({"messages": [{"role": "user", "content": "secret words"}], "max_tokens": 3}).status_code == 200
    assert guide.metric("completion_tokens_total") == before + 3
    assert guide.metric('first_token_seconds_bucket{le="+Inf"}') == guide.metric("first_token_seconds_count") > 0
    log = guide.log.read_text()
    assert "POST /v1/chat/completions 200" in log and "secret" not in log


def test_a_client_that_goes_away_stops_its_answer(noise: Server) -> None:
    before = noise.metric("cancelled_total")
    with httpx.stream("POST", f"{noise.url}/v1/chat/completions", json=FREE, timeout=60) as answer:
        lines = answer.iter_lines()
        assert next(lines)
        assert noise.metric("requests_in_flight") == 1
    until(lambda: noise.metric("requests_in_flight") == 0)
    assert noise.metric("cancelled_total") == before + 1
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(
            f"{noise.url}/v1/chat/completions", json={**FREE, "stream": False}, timeout=httpx.Timeout(60, read=0.5)
        )
    until(lambda: noise.metric("requests_in_flight") == 0)
    assert noise.metric("cancelled_total") == before + 2


def test_the_line_is_bounded_and_those_who_leave_it_are_forgotten(noise: Server) -> None:
    with ExitStack() as held:
        first = held.enter_context(httpx.stream("POST", f"{noise.url}/v1/chat/completions", json=FREE, timeout=60))
        lines = first.iter_lines()
        assert next(lines)
        with pytest.raises(httpx.ReadTimeout):
            noise_post(noise, read=1.0)
        until(lambda: noise.metric("queue_length") == 0)
        waiting = held.enter_context(waits(noise))
        until(lambda: noise.metric("queue_length") == 1)
        refused = noise_post(noise, read=60)
        assert refused.status_code == 429 and int(refused.headers["Retry-After"]) > 0
        assert refused.json()["error"]["code"] == "queue_full"
        first.close()
        assert waiting() == 200
    until(lambda: noise.metric("requests_in_flight") == 0)


def noise_post(noise: Server, read: float) -> httpx.Response:
    body = {"messages": ASK, "max_tokens": 2}
    return httpx.post(f"{noise.url}/v1/chat/completions", json=body, timeout=httpx.Timeout(60, read=read))


class waits:
    """A request in a thread of its own; called, it gives the status."""

    def __init__(self, noise: Server) -> None:
        import threading

        self.status = 0
        self.thread = threading.Thread(target=lambda: setattr(self, "status", noise_post(noise, 60).status_code))

    def __enter__(self) -> "waits":
        self.thread.start()
        return self

    def __call__(self) -> int:
        self.thread.join(60)
        return self.status

    def __exit__(self, *_error: object) -> None:
        self.thread.join(60)


def test_an_engine_that_dies_costs_one_answer(noise: Server) -> None:
    with httpx.stream("POST", f"{noise.url}/v1/chat/completions", json=FREE, timeout=60) as answer:
        lines = answer.iter_lines()
        next(lines)
        (engine,) = noise.engines()
        os.kill(engine, signal.SIGKILL)
        assert "SIGKILL" in [line for line in lines if line.startswith("data: ")][-1]
    assert noise_post(noise, 60).status_code == 200
    assert noise.engines() != [engine]


def test_models_come_when_asked_for_and_go_when_idle(tmp_path: Path, endless: str) -> None:
    arguments = ("vigogneau", endless, "--keep-alive", "0.5s", "--api-key-env", "SERVE_KEY")
    with serving(tmp_path / "home", *arguments, SERVE_KEY="kâÿ") as server:
        bearer = {"Authorization": b"Bearer " + "kâÿ".encode()}
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic a"}):
            refused = httpx.get(f"{server.url}/v1/models", headers=headers)
            assert refused.status_code == 401 and refused.json()["error"]["code"] == "invalid_api_key"
        names = [one["id"] for one in httpx.get(f"{server.url}/v1/models", headers=bearer).json()["data"]]
        assert names == ["vigogneau", "endless:F32"]
        page = lambda: httpx.get(f"{server.url}/metrics", headers=bearer).text  # noqa: E731
        assert "vigtui_models_loaded 0" in page()
        for name in (*names, "endless"):
            body = {"model": name, "messages": ASK, "max_tokens": 2}
            assert (
                httpx.post(f"{server.url}/v1/chat/completions", json=body, headers=bearer, timeout=60).status_code
                == 200
            )
        until(lambda: "vigtui_models_loaded 0" in page() and not server.engines())
        assert "kâÿ" not in server.log.read_text()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_end_stops_what_runs_and_leaves_nothing(tmp_path: Path, endless: str, number: signal.Signals) -> None:
    with serving(tmp_path / "home", endless, "--ctx", "65536") as server:
        with httpx.stream("POST", f"{server.url}/v1/chat/completions", json=FREE, timeout=60) as answer:
            lines = answer.iter_lines()
            next(lines)
            (engine,) = server.engines()
            server.process.send_signal(number)
            assert "The server ends" in [line for line in lines if line.startswith("data: ")][-1]
        assert server.process.wait(30) == 0
        assert not Path(f"/proc/{engine}").exists()
        assert "Traceback" not in server.log.read_text()


def test_an_adapter_is_applied(tmp_path: Path, client: openai.OpenAI) -> None:
    with serving(tmp_path / "home", "vigogneau", "--lora", "vigogneau-marin") as server, server.client() as marin:
        assert said(marin).choices[0].message.content != said(client).choices[0].message.content
