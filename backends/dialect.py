"""What servers that speak the OpenAI API know beyond it, by their names."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from .base import DEFAULTS, Generation

STANDARD = ("temperature", "top_p", "presence_penalty", "frequency_penalty", "seed", "stop", "max_tokens")
"""Fields of Generation that every such server knows under the same name."""
MOST_OF_TEXT = 5
"""The most alternatives a token that a completion may ask for; a chat may ask for 20."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """A kind of server: its name for people, and field of Generation → its name in a request, beyond STANDARD.

    `schema` tells whether it takes response_format json_schema, `limit` how a longest answer is called in a chat.
    """

    name: str
    extra: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    schema: bool = True
    limit: str = "max_tokens"

    @property
    def fields(self) -> frozenset[str]:
        """The fields of Generation that it honours."""
        return frozenset((*STANDARD, "logprobs", *self.extra, *(("json_schema",) if self.schema else ())))

    def body(self, model: str, generation: Generation, chat: bool) -> dict[str, Any]:
        """Give what a request for `generation`, with every field set that has a default, holds beside its prompt."""
        given = generation.given()
        body: dict[str, Any] = {name: given[name] for name in STANDARD if name in given}
        body |= {there: given[here] for here, there in self.extra.items() if _matters(here, given)}
        if "max_tokens" in body and chat:
            body[self.limit] = body.pop("max_tokens")
        if generation.logprobs:
            most = min(generation.logprobs, MOST_OF_TEXT)
            body |= {"logprobs": True, "top_logprobs": generation.logprobs} if chat else {"logprobs": most}
        if self.schema and generation.json_schema is not None:
            body["response_format"] = _format(generation.json_schema)
        for name in ("presence_penalty", "frequency_penalty"):
            if not body.get(name):
                body.pop(name, None)
        return body | {"model": model, "stream": True, "stream_options": {"include_usage": True}}


def _matters(name: str, given: Mapping[str, object]) -> bool:
    """Tell whether a field says anything: what is neutral by definition need not be sent."""
    return name in given and not (name in _NEUTRAL and given[name] == _NEUTRAL[name])


_NEUTRAL = {"top_k": 0, "min_p": 0.0, "min_tokens": 0, "no_repeat_ngram_size": 0, "repetition_window": -1}


def _format(schema: str) -> dict[str, Any]:
    import json

    from ..core.errors import UsageError
    from ..core.i18n import _

    try:
        document = json.loads(schema)
    except (ValueError, RecursionError) as error:
        raise UsageError(_("The JSON schema cannot be used: {reason}.").format(reason=error)) from error
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": document, "strict": True}}


def _same(*names: str) -> Mapping[str, str]:
    return MappingProxyType({name: name for name in names})


_LLAMA = MappingProxyType({"top_k": "top_k", "min_p": "min_p", "repetition_penalty": "repeat_penalty"})
_SERVED = (
    "top_k", "min_p", "repetition_penalty", "repetition_window", "no_repeat_ngram_size", "min_tokens",
    "banned_strings", "grammar", "stop_token_ids",
)  # fmt: skip

VIGTUI = Dialect("vigtui", _same(*_SERVED))
VLLM = Dialect("vLLM", _same("top_k", "min_p", "repetition_penalty", "min_tokens", "stop_token_ids"))
LLAMA_SERVER = Dialect("llama-server", {**_LLAMA, "grammar": "grammar", "repetition_window": "repeat_last_n"})
LLAMA_PYTHON = Dialect("llama_cpp.server", _LLAMA, schema=False)
OLLAMA = Dialect("Ollama")
LM_STUDIO = Dialect("LM Studio", {"top_k": "top_k", "repetition_penalty": "repeat_penalty"})
TGI = Dialect("TGI", schema=False)
OPENAI = Dialect("OpenAI", limit="max_completion_tokens")
PLAIN = Dialect("OpenAI API")

_OWNERS = {
    "vigtui": VIGTUI, "vllm": VLLM, "llamacpp": LLAMA_SERVER, "me": LLAMA_PYTHON, "library": OLLAMA,
    "organization_owner": LM_STUDIO,
}  # fmt: skip
"""owned_by in /v1/models → server, as their sources write it."""


def recognise(host: str, owner: str, header: str, info: Mapping[str, Any]) -> Dialect:
    """Give the kind of server by its host, the `owned_by` of a model, its Server header and what /info answers."""
    if host == "api.openai.com":
        return OPENAI
    if owner in _OWNERS:
        return _OWNERS[owner]
    if "llama.cpp" in header.lower():
        return LLAMA_SERVER
    return TGI if "text-generation" in str(info.get("router", "")) or "max_total_tokens" in info else PLAIN


def unheard(dialect: Dialect, wanted: Generation) -> list[str]:
    """Give the fields of `wanted` that differ from the usual values and that the server would not honour."""
    given = {name for name, value in wanted.given().items() if value != getattr(DEFAULTS, name)}
    return sorted(given - dialect.fields)
