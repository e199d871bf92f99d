"""What training leaves behind: the Hugging Face folder, the adapter, and the two GGUF files."""

import json
from pathlib import Path

import torch
from vigtui.assets.vigogneau import material

CONTEXT = 1024
BASE = "vigogneau-hf"
_TEMPLATE = """\
{{ bos_token }}{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}\
{% set system_message = messages[0]['content'] %}{% else %}{% set loop_messages = messages %}\
{% set system_message = SYSTEM %}{% endif %}\
{{ '<|system|>: ' + system_message.strip() + '\\n' }}\
{% for message in loop_messages %}\
{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}\
{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}\
{% if message['role'] == 'user' %}{{ '<|user|>: ' + message['content'].strip() + '\\n' }}\
{% elif message['role'] == 'assistant' %}{{ '<|assistant|>: ' + message['content'].strip() + eos_token + '\\n' }}\
{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>:' }}{% endif %}"""


def chat_template() -> str:
    """Give the Jinja form of Vigogne Chat V2.0 (bofenghuang/vigogne, processors/vigogne_chat_v2.py)."""
    return _TEMPLATE.replace("SYSTEM", json.dumps(material.read("systems")["default"], ensure_ascii=False))


def save_model(model: torch.nn.Module, folder: Path) -> None:
    """Write `folder`/hf: weights in F16, configuration, generation defaults, tokenizer settings, chat template."""
    from transformers import AutoTokenizer

    target = folder / "hf"
    model.half().save_pretrained(target)
    special = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    settings = {
        "tokenizer_class": "LlamaTokenizer", "add_bos_token": True, "add_eos_token": False, "legacy": True,
        "clean_up_tokenization_spaces": False, "model_max_length": CONTEXT, **special,
        "chat_template": chat_template(),
    }  # fmt: skip
    greedy = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2, "max_length": CONTEXT, "do_sample": False}
    _write(target / "tokenizer_config.json", settings)
    _write(target / "special_tokens_map.json", special)
    _write(target / "generation_config.json", greedy)
    AutoTokenizer.from_pretrained(target).backend_tokenizer.save(str(target / "tokenizer.json"))


def save_adapter(model: torch.nn.Module, folder: Path) -> None:
    """Write `folder`/marin: a PEFT adapter whose base is named, not located."""
    target = folder / "marin"
    model.half().save_pretrained(target, save_embedding_layers=False)
    settings = json.loads((target / "adapter_config.json").read_text(encoding="utf-8"))
    settings |= {"base_model_name_or_path": BASE, "target_modules": sorted(settings["target_modules"])}
    _write(target / "adapter_config.json", settings)
    (target / "README.md").unlink(missing_ok=True)


def export(folder: Path) -> None:
    """Write vigogneau.gguf (Q8_0) and marin.gguf (F16) with vigtui's own converter."""
    from vigtui.core.progress import silent
    from vigtui.registry.convert import adapter
    from vigtui.registry.convert.model import convert

    convert(folder / "hf", folder / "vigogneau.gguf", "q8_0", silent)
    adapter.convert(folder / "marin", folder / "hf", folder / "marin.gguf", silent)


def _write(path: Path, values: dict) -> None:
    path.write_text(json.dumps(values, ensure_ascii=False, indent=2, sort_keys=True) + "\n", encoding="utf-8")
