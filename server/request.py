"""What a client asks for: JSON of the OpenAI API, parsed once and checked, into a value that the server trusts."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from ..backends.base import Generation, Message
from ..backends.dialect import MOST_OF_TEXT
from ..core.errors import UsageError
from ..core.i18n import _
from .fault import Fault

MOST_STOPS = 64
MOST_OF_CHAT = 20
"""The most alternatives of a token in a chat, as in the OpenAI API; MOST_OF_TEXT is that of a completion."""
ANY_OBJECT = '{"type": "object"}'
"""The schema of response_format json_object."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A request for an answer. Of a chat `messages` is set, of a completion `prompt`; `model` is None when unnamed.

    `logprobs` is the number of alternatives beside each token, None for no logprobs at all.
    """

    model: str | None
    generation: Generation
    messages: tuple[Message, ...] = ()
    prompt: str | None = None
    stream: bool = False
    usage: bool = False
    logprobs: int | None = None

    @property
    def chat(self) -> bool:
        """Whether it is a chat."""
        return self.prompt is None


def parse(data: bytes, chat: bool) -> Asked:
    """Give what the body of a request asks for. Raises Fault with status 400."""
    body = _object(data)
    _refuse(body, chat)
    options = body.get("stream_options")
    logprobs = _logprobs(body, chat)
    return Asked(
        model=_text(body, "model"),
        generation=replace(_generation(body), logprobs=None if logprobs is None else max(1, logprobs)),
        messages=_messages(body.get("messages")) if chat else (),
        prompt=None if chat else _prompt(body.get("prompt")),
        stream=_flag(body, "stream"),
        usage=isinstance(options, dict) and _flag(options, "include_usage"),
        logprobs=logprobs,
    )


def _object(data: bytes) -> dict[str, Any]:
    try:
        body = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise Fault(400, _("The body is not JSON: {reason}.").format(reason=error)) from error
    if not isinstance(body, dict):
        raise Fault(400, _("The body must be a JSON object."))
    return body


def _refuse(body: Mapping[str, Any], chat: bool) -> None:
    """Refuse what would change the answer and cannot be honoured."""
    for name in ("tools", "functions"):
        if body.get(name):
            raise Fault(400, _("This server does not call tools; leave out {name}.").format(name=name), name)
    for name in ("n", "best_of"):
        if body.get(name) not in (None, 1):
            raise Fault(400, _("Only one answer at a time: {name} must be 1.").format(name=name), name)
    refused = ("logit_bias", "audio", "prediction") if chat else ("logit_bias", "suffix", "echo")
    for name in refused:
        if body.get(name):
            raise Fault(400, _("{name} is not supported.").format(name=name), name)


def _messages(value: Any) -> tuple[Message, ...]:
    """Give the messages, the texts of the system first and those of one side in a row joined by a blank line."""
    if not isinstance(value, list) or not value:
        raise Fault(400, _("messages must be a list with at least one message."), "messages")
    system: list[str] = []
    turns: list[Message] = []
    for number, one in enumerate(value):
        place = f"messages[{number}]"
        role = one.get("role") if isinstance(one, dict) else None
        if role not in ("system", "developer", "user", "assistant"):
            raise Fault(400, _("{place} must have the role system, user or assistant.").format(place=place), place)
        content = _content(one.get("content"), place)
        if role in ("system", "developer"):
            system.append(content)
        elif turns and turns[-1].role == role:
            turns[-1] = Message(role, f"{turns[-1].content}\n\n{content}")
        else:
            turns.append(Message(role, content))
    head = (Message("system", "\n\n".join(system)),) if system else ()
    return (*head, *turns)


def _content(value: Any, place: str) -> str:
    if value is None or isinstance(value, str):
        return _unicode(value or "", place)
    if not isinstance(value, list):
        raise Fault(400, _("{place} must have a text as its content.").format(place=place), place)
    parts = [part.get("text") for part in value if isinstance(part, dict) and part.get("type") == "text"]
    texts = [part for part in parts if isinstance(part, str)]
    if len(texts) != len(value):
        raise Fault(400, _("{place} holds more than text; these models read text only.").format(place=place), place)
    return _unicode("\n".join(texts), place)


def _prompt(value: Any) -> str:
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], str):
        value = value[0]
    if not isinstance(value, str) or not value:
        raise Fault(400, _("prompt must be one text that is not empty."), "prompt")
    return _unicode(value, "prompt")


def _unicode(text: str, place: str) -> str:
    """Refuse half characters, which JSON can spell and no tokenizer reads."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise Fault(400, _("{place} holds half a character.").format(place=place), place) from error
    return text


def _generation(body: Mapping[str, Any]) -> Generation:
    values: dict[str, Any] = {name: _FIELDS[name](body, name) for name in _FIELDS if body.get(name) is not None}
    if (most := _whole(body, "max_completion_tokens")) is not None:
        values["max_tokens"] = most
    if "seed" in values:
        values["seed"] = None if values["seed"] == -1 else values["seed"] % (2**32 - 1)
    if (schema := _schema(body.get("response_format"))) is not None:
        values["json_schema"] = schema
    try:
        return Generation(**values)
    except UsageError as error:
        raise Fault(400, str(error)) from error


def _schema(value: Any) -> str | None:
    """Give the JSON schema that response_format asks for, or None for free text."""
    kind = value.get("type") if isinstance(value, dict) else None
    if value is None or kind == "text":
        return None
    if kind == "json_object":
        return ANY_OBJECT
    inner = value.get("json_schema") if kind == "json_schema" else None
    schema = inner.get("schema") if isinstance(inner, dict) else None
    if not isinstance(schema, dict):
        reason = _("response_format must be text, json_object, or json_schema with a schema.")
        raise Fault(400, reason, "response_format")
    return json.dumps(schema)


def _logprobs(body: Mapping[str, Any], chat: bool) -> int | None:
    """Give the number of alternatives beside each token, None for no logprobs. A chat names it apart."""
    if not chat:
        return None if body.get("logprobs") is False else _count(body, "logprobs", MOST_OF_TEXT)
    count = _count(body, "top_logprobs", MOST_OF_CHAT)
    if body.get("logprobs") != 0 and _flag(body, "logprobs"):
        return count or 0
    if count:
        raise Fault(400, _("top_logprobs needs logprobs to be true."), "top_logprobs")
    return None


def _count(body: Mapping[str, Any], name: str, most: int) -> int | None:
    value = _whole(body, name)
    if value is not None and not 0 <= value <= most:
        raise _wrong(name, _("a whole number from 0 to {most}").format(most=most))
    return value


def _text(body: Mapping[str, Any], name: str) -> str | None:
    value = body.get(name)
    if value is not None and not isinstance(value, str):
        raise _wrong(name, _("a text"))
    return value


def _flag(body: Mapping[str, Any], name: str) -> bool:
    value = body.get(name)
    if value is not None and not isinstance(value, bool):
        raise _wrong(name, _("true or false"))
    return bool(value)


def _whole(body: Mapping[str, Any], name: str) -> int | None:
    value = body.get(name)
    if value is not None and (type(value) is not int or abs(value) >= 1 << 63):
        raise _wrong(name, _("a whole number"))
    return value


def _number(body: Mapping[str, Any], name: str) -> float:
    value = body[name]
    if type(value) not in (int, float) or abs(value) > 1e9:
        raise _wrong(name, _("a number"))
    return float(value)


def _texts(body: Mapping[str, Any], name: str) -> tuple[str, ...] | None:
    value = body[name]
    found = [value] if isinstance(value, str) else value
    if not isinstance(found, list) or len(found) > MOST_STOPS or not all(isinstance(one, str) for one in found):
        raise _wrong(name, _("a text or a list of at most {count} texts").format(count=MOST_STOPS))
    return tuple(_unicode(one, name) for one in found if one) or None


def _ids(body: Mapping[str, Any], name: str) -> tuple[int, ...] | None:
    value = body[name]
    if not isinstance(value, list) or not all(type(one) is int and 0 <= one < 1 << 31 for one in value):
        raise _wrong(name, _("a list of token ids"))
    return tuple(value[:MOST_STOPS]) or None


def _wrong(name: str, wanted: str) -> Fault:
    return Fault(400, _("{name} must be {wanted}.").format(name=name, wanted=wanted), name)


_LISTS: dict[str, Callable[[Mapping[str, Any], str], Any]] = {
    "stop": _texts, "banned_strings": _texts, "stop_token_ids": _ids, "json_schema": _text, "grammar": _text,
}  # fmt: skip
_FLOATS = {"temperature", "top_p", "min_p", "repetition_penalty", "presence_penalty", "frequency_penalty"}
_FIELDS: dict[str, Callable[[Mapping[str, Any], str], Any]] = {
    field.name: _LISTS.get(field.name) or (_number if field.name in _FLOATS else _whole)
    for field in fields(Generation)
    if field.name != "logprobs"
}
"""Field of Generation → how its value is read; all of them may be asked for under their own names."""
