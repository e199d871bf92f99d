"""Copies of a GGUF file with another chat template."""

from pathlib import Path

import gguf

KEY = "tokenizer.chat_template"


def with_template(source: Path, target: Path, template: str | None, eos: int | None = None) -> Path:
    """Copy `source` to `target` with `template`, or with none, and perhaps with another EOS."""
    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(target, "llama")
    for field in reader.fields.values():
        if field.name.startswith("GGUF.") or field.name in ("general.architecture", KEY):
            continue
        value = eos if eos is not None and field.name.endswith("eos_token_id") else field.contents()
        writer.add_key_value(field.name, value, field.types[0], field.types[1] if len(field.types) > 1 else None)
    if template is not None:
        writer.add_chat_template(template)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target
