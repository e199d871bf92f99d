"""vLLM in place of our own server: its command line for a model, with the prompt format as its chat template."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..backends.base import LoadOptions, ModelInfo
from ..chat import formats
from ..chat.formats import Format
from ..core import config, paths
from ..core.errors import BackendError, UsageError
from ..core.i18n import _
from ..registry.record import Record
from ..registry.store import Registry

PYTHON = "VIGTUI_VLLM_PYTHON"
"""The variable that names the Python which has vLLM, where that is not ours."""
_MODULE = "vllm.entrypoints.openai.api_server"

_BEFORE = """\
{%- if messages and messages[0].role == "system" -%}
{%- set system = messages[0].content -%}{%- set messages = messages[1:] -%}
{%- else -%}{%- set system = SYSTEM -%}{%- endif -%}
{%- set is_default = system == SYSTEM -%}{%- set input = none -%}{%- set cut = "" -%}
{%- set bos = bos_token or "" -%}{%- set eos = EOS -%}
{%- set talk = namespace(rounds=[], user=none, assistant=none, open=false) -%}
{%- for message in messages -%}
{%- if message.role == "user" or not talk.open or talk.assistant is not none -%}
{%- if talk.open -%}
{%- set talk.rounds = talk.rounds + [{"user": talk.user, "assistant": talk.assistant}] -%}
{%- endif -%}
{%- set talk.user = none -%}{%- set talk.assistant = none -%}{%- set talk.open = true -%}
{%- endif -%}
{%- if message.role == "user" -%}{%- set talk.user = message.content -%}
{%- else -%}{%- set talk.assistant = message.content -%}{%- endif -%}
{%- endfor -%}
{%- if talk.open -%}
{%- set talk.rounds = talk.rounds + [{"user": talk.user, "assistant": talk.assistant}] -%}
{%- endif -%}
{%- set rounds = talk.rounds -%}
{%- set text -%}
"""
_AFTER = """\
{%- endset -%}
{%- if bos and text.startswith(bos) -%}{%- set text = text[bos | length:] -%}{%- endif -%}
{{- START ~ text -}}
"""


def template(form: Format, adds_bos: bool = True) -> str:
    """Give the chat template in which servers of Hugging Face models render `form`: of `messages` and the texts of
    BOS and EOS. Such servers add no BOS to a chat, so it is written unless the model wants none."""
    words = {"SYSTEM": json.dumps(form.system) if form.system is not None else "none"}
    words["EOS"] = '(eos_token or "")' if form.eos_in_history else '""'
    before = _BEFORE
    for word, value in words.items():
        before = before.replace(word, value)
    return before + form.template.rstrip("\n") + "\n" + _AFTER.replace("START", "bos" if adds_bos else '""')


def command(
    record: Record, form_id: str | None, options: LoadOptions, host: str, port: int, extra: Sequence[str] = ()
) -> list[str]:
    """Give the command line that serves `record` with vLLM; its chat template is written into the cache.

    `extra` goes to vLLM as it is. Raises UsageError for a model that vLLM does not read.
    """
    _readable(record)
    parts = [python(), "-m", _MODULE, "--model", str(record.path), "--served-model-name", record.ref]
    if (form := _format(record, form_id)) is not None:
        parts += ["--chat-template", str(_written(template(form, _adds_bos(record.path))))]
    if context := options.context or record.context:
        parts += ["--max-model-len", str(context)]
    if options.remote_code:
        parts.append("--trust-remote-code")
    if options.dtype:
        parts += ["--dtype", {"f32": "float32", "f16": "float16", "bf16": "bfloat16"}.get(options.dtype, options.dtype)]
    return [*parts, "--host", host, "--port", str(port), *extra]


def python() -> str:
    """Give the Python that runs vLLM."""
    return os.environ.get(PYTHON) or sys.executable


def start(parts: Sequence[str], key: str | None) -> None:
    """Become vLLM: this process is replaced, so that signals reach it. Raises BackendError when it is not there."""
    check = [parts[0], "-P", "-c", "import importlib.util, sys; sys.exit(not importlib.util.find_spec('vllm'))"]
    try:
        found = subprocess.run(check, capture_output=True, check=False).returncode == 0
    except OSError:
        found = False
    if not found:
        raise BackendError(
            _("vLLM is not installed for {python}.").format(python=parts[0]),
            _("pip install vllm, or name a Python that has it in {variable}.").format(variable=PYTHON),
        )
    environment: Mapping[str, str] = os.environ | ({"VLLM_API_KEY": key} if key else {})
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(parts[0], list(parts), dict(environment))


def _readable(record: Record) -> None:
    if record.kind in ("safetensors", "gptq"):
        return
    if record.kind == "gguf":
        known = [one for one in Registry().all() if one.kind in ("safetensors", "gptq") and _related(one, record)]
        names = ", ".join(one.ref for one in known)
        raise UsageError(
            _("{name} is a GGUF file; vLLM reads Hugging Face folders and GPTQ.").format(name=record.ref),
            _("Serve {names} with it.").format(names=names)
            if names
            else _("Pull the model's original repository, or leave out --engine vllm."),
        )
    raise UsageError(_("vLLM cannot serve {name}, which is of the kind {kind}.").format(
        name=record.ref, kind=record.kind))  # fmt: skip


def _related(one: Record, other: Record) -> bool:
    return one.ref in other.parents or one.name in other.parents or one.name.startswith(other.name)


def _format(record: Record, form_id: str | None) -> Format | None:
    """Give the prompt format to hand over; None leaves the model its own."""
    chosen = form_id or record.format
    own = _own(record.path)
    if chosen == formats.OWN or (chosen is None and own):
        return None
    info = ModelInfo("vllm", record.architecture, 0, 0, 0, 0, "", 0)
    return formats.choose(chosen, info)[0]


def _own(folder: Path) -> bool:
    return (folder / "chat_template.jinja").is_file() or bool(_settings(folder).get("chat_template"))


def _adds_bos(folder: Path) -> bool:
    return _settings(folder).get("add_bos_token") is not False


def _settings(folder: Path) -> dict[str, object]:
    from ..registry import document

    return dict(document.optional(folder / "tokenizer_config.json"))


def _written(text: str) -> Path:
    """Give the file of the cache that holds `text`, named by what it holds."""
    path = paths.cache() / "templates" / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.jinja"
    config.write(path, text)
    return path
