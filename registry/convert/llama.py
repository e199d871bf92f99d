"""A Hugging Face Llama with a SentencePiece tokenizer → one GGUF file.

Reference: convert_hf_to_gguf.py of llama.cpp; metadata keys in ggml/docs/gguf.md.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...core.errors import FormatError, UsageError
from ...core.i18n import _
from ...core.progress import Progress, silent
from . import layout, safetensors, vocabulary, writer

if TYPE_CHECKING:
    from collections.abc import Iterator

    import gguf
    import numpy as np

FILE_TYPES = {"f32": 0, "f16": 1, "q8_0": 7}
"""Our type → general.file_type (llama_ftype)."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What config.json says beside the sizes; `factor` stretches rope linearly."""

    context: int
    epsilon: float
    theta: float
    factor: float


def convert(source: Path, target: Path, type: str = "f16", progress: Progress = silent) -> tuple[str, ...]:
    """Write the model in the folder `source` as GGUF to `target`; give sentences for the record's notices.

    `type` is f32, f16 or q8_0; norms and biases stay F32, rows that Q8_0 cannot hold are F16. Memory: about 100 MB.
    Raises UsageError for another type, FormatError for what cannot be converted, CapacityError for a full disk.
    """
    if type not in FILE_TYPES:
        raise UsageError(
            _("There is no type {type}.").format(type=type),
            _("Choose one of {types}.").format(types=", ".join(FILE_TYPES)),
        )
    path = source / "config.json"
    config = vocabulary.load_json(path)
    sizes, settings = layout.sizes(config, path), _settings(config, path)
    tensors = safetensors.index(source)
    places = _match(tensors, sizes, source)
    words = vocabulary.read(source, tensors["model.embed_tokens.weight"].shape[0], config)
    outputs = [_output(tensors[name], place, sizes, type) for name, place in places.items()]

    def describe(out: "gguf.GGUFWriter") -> None:
        out.add_name(source.resolve().name)
        out.add_file_type(FILE_TYPES[type])
        _describe(out, sizes, settings)
        _describe_words(out, words)

    writer.write(target, "llama", describe, outputs, progress)
    return tuple(words.notices)


def _settings(config: Mapping[str, Any], path: Path) -> Settings:
    """Read the settings, after refusing what this conversion would get wrong."""
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}  # since transformers 5, and before
    rope = rope if isinstance(rope, dict) else {"type": rope}
    scaling = rope.get("rope_type", rope.get("type", "default"))
    problem = None
    if config.get("quantization_config"):
        problem = _("its weights are quantized already")
    elif config.get("hidden_act", "silu") != "silu":
        problem = _("its activation is {name}").format(name=config["hidden_act"])
    elif config.get("mlp_bias"):
        problem = _("its feed-forward layers have biases")
    elif scaling not in ("default", "linear"):
        problem = _("its rope scaling is {name}").format(name=scaling)
    if problem:
        raise FormatError(
            _("{path} cannot be converted: {problem}.").format(path=path.parent, problem=problem),
            _("Pull a GGUF build of this model, or run it with the transformers backend."),
        )
    return Settings(
        int(layout.number(config, "max_position_embeddings", 2048, path)),
        layout.number(config, "rms_norm_eps", 1e-6, path),
        layout.number({**config, **rope}, "rope_theta", 10000.0, path),
        layout.number(rope, "factor", 1.0, path) if scaling == "linear" else 1.0,
    )


def _match(tensors: Mapping[str, safetensors.Tensor], sizes: layout.Sizes, source: Path) -> dict[str, layout.Place]:
    """Give each weight's place, after checking that all are there, have the right shape, and none is left."""
    bias = "model.layers.0.self_attn.o_proj.bias" in tensors
    places = layout.weights(sizes, bias)
    embedding = tensors.get("model.embed_tokens.weight")
    rows = embedding.shape[0] if embedding and embedding.shape else None
    for name, place in places.items():
        expected = tuple(rows if n is None else n for n in place.shape)
        found = tensors[name].shape if name in tensors else None
        if found != expected:
            raise FormatError(
                _("{source}: {name} should have the shape {expected}, not {found}.").format(
                    source=source, name=name, expected=expected, found=found
                ),
                _("The weights do not belong to this config.json: fetch both again."),
            )
    left = [name for name in tensors if name not in places and not _derived(name, sizes)]
    if left:
        raise FormatError(
            _("{source}: {name} has no place in a Llama.").format(source=source, name=left[0]),
            _("Pull a GGUF build of this model, or run it with the transformers backend."),
        )
    return places


def _derived(name: str, sizes: layout.Sizes) -> bool:
    """Say whether the tensor repeats what the others hold: rope's frequencies, the output of tied embeddings."""
    return name.endswith("rotary_emb.inv_freq") or (sizes.tied and name == "lm_head.weight")


def _output(tensor: safetensors.Tensor, place: layout.Place, sizes: layout.Sizes, type: str) -> writer.Output:
    kind = type.upper()
    if len(tensor.shape) == 1:
        kind = "F32"
    elif kind == "Q8_0" and tensor.shape[-1] % 32:
        kind = "F16"
    return writer.Output(place.name, kind, tensor.shape, partial(_pieces, tensor, place, sizes.head_dim))


def _pieces(tensor: safetensors.Tensor, place: layout.Place, head_dim: int) -> "Iterator[np.ndarray]":
    for piece in safetensors.chunks(tensor, rows=head_dim if place.heads else 1):
        yield layout.permute(piece, head_dim) if place.heads else piece


def _describe(out: "gguf.GGUFWriter", sizes: layout.Sizes, settings: Settings) -> None:
    import gguf  # 0.2 s with numpy: only when a file is written

    out.add_type("model")
    out.add_quantization_version(gguf.GGML_QUANT_VERSION)
    out.add_context_length(settings.context)
    out.add_embedding_length(sizes.hidden)
    out.add_block_count(sizes.layers)
    out.add_feed_forward_length(sizes.feed_forward)
    out.add_head_count(sizes.heads)
    out.add_head_count_kv(sizes.kv_heads)
    out.add_key_length(sizes.head_dim)
    out.add_value_length(sizes.head_dim)
    out.add_layer_norm_rms_eps(settings.epsilon)
    out.add_rope_dimension_count(sizes.head_dim)
    out.add_rope_freq_base(settings.theta)
    if settings.factor != 1.0:
        out.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        out.add_rope_scaling_factor(settings.factor)


def _describe_words(out: "gguf.GGUFWriter", words: vocabulary.Vocabulary) -> None:
    out.add_vocab_size(len(words.tokens))
    out.add_tokenizer_model("llama")
    out.add_tokenizer_pre("default")
    out.add_token_list(words.tokens)
    out.add_token_scores(words.scores)
    out.add_token_types(words.types)
    for name, add in (
        ("bos", out.add_bos_token_id),
        ("eos", out.add_eos_token_id),
        ("unk", out.add_unk_token_id),
        ("pad", out.add_pad_token_id),
    ):
        if name in words.ids:
            add(words.ids[name])
    out.add_add_bos_token(words.add_bos)
    out.add_add_eos_token(words.add_eos)
    out.add_add_space_prefix(words.add_space_prefix)
    if words.chat_template:
        out.add_chat_template(words.chat_template)
