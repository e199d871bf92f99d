"""Where each tensor of an adapter goes in its base model; what has no place there is refused by name."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from math import prod
from pathlib import Path
from typing import Any

from ...core.errors import FormatError
from ...core.i18n import _
from ..convert import safetensors
from ..convert.safetensors import FLOATS, Tensor
from . import adapter as reader
from .adapter import Adapter, Pair
from .change import LARGEST, Change, Product

_EMBEDDINGS = ("embed_tokens", "lm_head", "wte", "word_embeddings", "embed_in", "embed_out")
"""Modules with a row for every token (LLaMA, GPT-2, Falcon and BLOOM, GPT-NeoX)."""
_OUTPUTS = ("lm_head.weight", "embed_out.weight")
_TRANSPOSED = ("gpt2", "openai-gpt", "imagegpt", "decision_transformer")
"""model_type of those that store weights as (in, out): transformers' Conv1D."""


@dataclass(slots=True)
class Places:
    """The tensors of a base model and what adapters do to them, filled adapter by adapter.

    `tokenizer` is the folder of the first adapter that changes an embedding: its own tokenizer is the right one.
    """

    base: Path
    config: Mapping[str, Any]
    tensors: Mapping[str, Tensor]
    changes: dict[str, Change] = field(default_factory=dict)
    notices: list[str] = field(default_factory=list)
    tokenizer: Path | None = None

    def add(self, adapter: Adapter, scale: float) -> None:
        """Give every tensor of `adapter` its place. Raises FormatError when one has none, or does not fit."""
        left: list[str] = []
        before = dict(self.changes)
        for name, tensor in adapter.replaced.items():
            self._replace(adapter, name, tensor, left)
        for pair in adapter.pairs:
            self._pair(adapter, pair, scale, left, before)
        for module, (ids, tensor) in adapter.rows.items():
            self._rows(adapter, module, ids, tensor, left)
        if left:
            raise reader.stray(adapter.folder, left, self._hint(left))
        if self.tokenizer is None and any(map(_is_embedding, self.changes)):
            self.tokenizer = adapter.folder
        if scale != 1 and (adapter.replaced or adapter.rows):
            self.notices.append(
                _("The scale of {adapter} has no effect on what it replaces as a whole.").format(
                    adapter=adapter.folder.name
                )
            )

    def finish(self) -> None:
        """Settle what concerns several tensors: tied weights, and one size of the vocabulary."""
        self._tie()
        rows = {name: self.shape(name)[0] for name in self.tensors if _is_embedding(name)}
        if any(self.shape(name) != self.tensors[name].shape for name in rows) and len(set(rows.values())) > 1:
            raise FormatError(
                _("The merged model would have a different number of tokens in {names}.").format(
                    names=", ".join(f"{name} ({count})" for name, count in rows.items())
                ),
                _("The adapter was saved without all of its embeddings: fetch another revision."),
            )

    def shape(self, name: str) -> tuple[int, ...]:
        """Give the shape that the tensor `name` will have."""
        return (self.changes[name].source if name in self.changes else self.tensors[name]).shape

    @property
    def vocabulary(self) -> int | None:
        """The new number of tokens, None when it stays."""
        embeddings = filter(_is_embedding, self.changes)
        return next((self.shape(at)[0] for at in embeddings if self.shape(at) != self.tensors[at].shape), None)

    @property
    def tokens(self) -> int | None:
        """The number of rows of the input embedding, where it has one of the usual names."""
        inputs = (name for name in self.tensors if _is_embedding(name) and name not in _OUTPUTS)
        return next((self.shape(name)[0] for name in inputs), None)

    def _find(self, parameter: str) -> str | None:
        """Give the base's name of a parameter: checkpoints of 2022 and 2023 leave out or add the model's own part."""
        shorter = parameter.partition(".")[2]
        names = (parameter, shorter, f"model.{parameter}", f"transformer.{parameter}")
        return next((name for name in names if name in self.tensors), None)

    def _change(self, name: str, change: "Callable[[Change], Change]") -> None:
        self.changes[name] = change(self.changes.get(name) or Change(self.tensors[name]))

    def _replace(self, adapter: Adapter, parameter: str, tensor: Tensor, left: list[str]) -> None:
        name = self._find(parameter)
        if name is None:
            if not self._repeats_embedding(adapter, parameter, tensor):
                left.append(parameter)
            return
        if _equal(tensor, self.tensors[name]):  # PEFT saves the base's embeddings beside a LoRA on them
            return
        if name in self.changes:
            raise _conflict(adapter, name)
        old = self.tensors[name].shape
        grown = _is_embedding(name) and len(tensor.shape) == 2 and tensor.shape[1:] == old[1:]
        if tensor.shape != old and not (grown and tensor.shape[0] > 0):
            raise _mismatch(adapter, parameter, tensor.shape, old)
        self._check(adapter, name, tensor)
        self.changes[name] = Change(replace(tensor, name=name))

    def _repeats_embedding(self, adapter: Adapter, parameter: str, tensor: Tensor) -> bool:
        """Tell whether this is the output of tied embeddings, saved twice with the same values."""
        others = (other for name, other in adapter.replaced.items() if _is_embedding(name) and name != parameter)
        return parameter in _OUTPUTS and any(_equal(tensor, other) for other in others)

    def _pair(self, adapter: Adapter, pair: Pair, scale: float, left: list[str], before: Mapping[str, Change]) -> None:
        name = self._find(f"{pair.module}.weight")
        if name is None:
            left.append(pair.module)
            return
        if name in before and before[name].source is not self.tensors[name]:
            raise _conflict(adapter, name)
        shape, (out, inner) = self.shape(name), (pair.b.shape[0], pair.a.shape[1])
        transposed = pair.embedding or self._stored_transposed(shape, out, inner)
        wanted = (inner, out) if transposed else (out, inner)
        if shape != wanted:
            raise _mismatch(adapter, pair.module, wanted, shape)
        if pair.magnitude is not None and prod(pair.magnitude.shape) != out:
            raise _mismatch(adapter, f"{pair.module}.lora_magnitude_vector", pair.magnitude.shape, (out,))
        self._check(adapter, name, pair.a, pair.b, pair.magnitude, pair.bias)
        product = Product(pair.a, pair.b, pair.scale * scale, transposed, pair.magnitude)
        self._change(name, lambda change: replace(change, products=(*change.products, product)))
        if pair.bias is not None:
            self._bias(adapter, pair.module, pair.bias, pair.scale * scale, left)

    def _stored_transposed(self, shape: tuple[int, ...], out: int, inner: int) -> bool:
        """Tell whether the base stores this weight as (in, out); PEFT too asks the layer, not fan_in_fan_out."""
        if out != inner:
            return shape == (inner, out)
        return self.config.get("model_type") in _TRANSPOSED

    def _bias(self, adapter: Adapter, module: str, bias: Tensor, scale: float, left: list[str]) -> None:
        name = self._find(f"{module}.bias")
        if name is None:
            left.append(f"{module}.lora_B.bias")
            return
        if self.shape(name) != bias.shape:
            raise _mismatch(adapter, f"{module}.lora_B.bias", bias.shape, self.shape(name))
        self._check(adapter, name, bias)
        self._change(name, lambda change: replace(change, vectors=(*change.vectors, (bias, scale))))

    def _rows(self, adapter: Adapter, module: str, ids: tuple[int, ...], tensor: Tensor, left: list[str]) -> None:
        name = self._find(f"{module}.weight")
        if name is None:
            left.append(f"{module}.token_adapter")
            return
        shape = self.shape(name)
        if len(shape) != 2 or tensor.shape[1:] != shape[1:] or max(ids, default=0) >= shape[0]:
            raise _mismatch(adapter, f"{module}.token_adapter", tensor.shape, shape)
        self._check(adapter, name, tensor)
        earlier = {id for found, _tensor in (self.changes[name].rows if name in self.changes else ()) for id in found}
        if earlier.intersection(ids):
            raise _conflict(adapter, name)
        self._change(name, lambda change: replace(change, rows=(*change.rows, (ids, tensor))))

    def _check(self, adapter: Adapter, name: str, *added: Tensor | None) -> None:
        """Refuse numbers that are no floats: a quantized base, or an adapter in a type that nobody trains."""
        tensor = self.tensors[name]
        if tensor.dtype not in LARGEST:
            raise FormatError(
                _("{path} stores {name} as {dtype}, which nothing can be merged into.").format(
                    path=self.base, name=name, dtype=tensor.dtype
                ),
                _("Start from weights in F32, F16 or BF16."),
            )
        if wrong := next((one for one in added if one is not None and one.dtype not in FLOATS), None):
            raise FormatError(
                _("{adapter} stores {name} as {dtype}.").format(
                    adapter=adapter.folder, name=wrong.name, dtype=wrong.dtype
                ),
                _("Fetch another revision, or save it in F32, F16 or BF16."),
            )

    def _tie(self) -> None:
        """Let the output follow the embeddings where the base keeps one matrix for both."""
        embedding = next((name for name in self.changes if _is_embedding(name) and name not in _OUTPUTS), None)
        output = next((name for name in _OUTPUTS if name in self.tensors), None)
        if not self.config.get("tie_word_embeddings", output is None):
            return
        if output in self.changes and (embedding is None or not self._same(output, embedding)):
            raise FormatError(
                _("{base} ties its output layer to its embeddings, and an adapter changes {name} alone.").format(
                    base=self.base, name=output
                ),
                _("Apply it at run time instead: vigtui -m BASE --lora ADAPTER."),
            )
        if embedding and output:
            self.changes[output] = replace(
                self.changes[embedding], source=replace(self.changes[embedding].source, name=output)
            )
        if embedding:
            self.notices.append(
                _("The base ties its output layer to its embeddings: the output changes with {name}.").format(
                    name=embedding
                )
            )

    def _same(self, output: str, embedding: str) -> bool:
        first, second = self.changes[output], self.changes[embedding]
        replaced = not (first.products or first.rows or second.products or second.rows)
        return replaced and _equal(first.source, second.source)

    def _hint(self, left: list[str]) -> str:
        if any(name.startswith(("lm_head", "embed_out")) for name in left):
            return _("The base has no output layer of its own: it may tie it to its embeddings.")
        return _("It was trained on another model, or on one whose layers are joined or named otherwise.")


def _is_embedding(name: str) -> bool:
    return name.endswith(".weight") and name.split(".")[-2] in _EMBEDDINGS


def _equal(first: Tensor, second: Tensor) -> bool:
    """Tell whether two tensors hold the same values, whatever their types."""
    if first.shape != second.shape or not {first.dtype, second.dtype} <= set(FLOATS):
        return False
    step = max(1, (1 << 20) // max(1, prod(first.shape[1:])))
    starts = range(0, first.shape[0] if first.shape else 1, step)
    spans = ((start, min(start + step, starts.stop)) for start in starts)
    return all((safetensors.part(first, *span) == safetensors.part(second, *span)).all() for span in spans)


def _conflict(adapter: Adapter, name: str) -> FormatError:
    return FormatError(
        _("{adapter} and an adapter before it both change {name}, and one replaces it as a whole.").format(
            adapter=adapter.folder, name=name
        ),
        _("Merge one of them only."),
    )


def _mismatch(adapter: Adapter, name: str, found: Iterable[int], wanted: Iterable[int]) -> FormatError:
    shapes = [" × ".join(map(str, shape)) for shape in (found, wanted)]
    if name.removesuffix(".weight").rpartition(".")[2] in _EMBEDDINGS:
        return FormatError(
            _("{adapter} has a vocabulary of another size: {name} is {found}, in the base {wanted}.").format(
                adapter=adapter.folder, name=name, found=shapes[0], wanted=shapes[1]
            ),
            _("Use the base model that it names, with the same tokenizer."),
        )
    return FormatError(
        _("{adapter} does not fit the base: {name} is {found}, in the base {wanted}.").format(
            adapter=adapter.folder, name=name, found=shapes[0], wanted=shapes[1]
        ),
        _("The adapter belongs to another base model: check its size and version."),
    )
