"""The vocabulary of a model as GGUF wants it: what every tokenizer is read into, and how it is written."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ...core.i18n import _

if TYPE_CHECKING:
    import gguf

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
"""Token types, the same numbers in SentencePiece and in GGUF."""


@dataclass(slots=True)
class Vocabulary:
    """Tokens by id with their scores and types; `ids` holds bos, eos, eot, unk and pad where the model has them.

    `model` is "llama" (SentencePiece, by scores) or "gpt2" (bytes, by `merges`); `pre` a pre-tokenizer of llama.cpp.
    """

    model: str = "llama"
    pre: str = "default"
    tokens: list[str] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    types: list[int] = field(default_factory=list)
    merges: list[str] = field(default_factory=list)
    ids: dict[str, int] = field(default_factory=dict)
    add_bos: bool = True
    add_eos: bool = False
    add_space_prefix: bool = True
    chat_template: str | None = None
    notices: list[str] = field(default_factory=list)

    def append(self, token: str, score: float, kind: int) -> None:
        """Add the token of the next id."""
        self.tokens.append(token)
        self.scores.append(score)
        self.types.append(kind)

    def describe(self, out: "gguf.GGUFWriter") -> None:
        """Add the keys of ggml/docs/gguf.md."""
        out.add_vocab_size(len(self.tokens))
        out.add_tokenizer_model(self.model)
        out.add_tokenizer_pre(self.pre)
        out.add_token_list(self.tokens)
        if self.model == "llama":
            out.add_token_scores(self.scores)
        out.add_token_types(self.types)
        if self.model == "gpt2":
            out.add_token_merges(self.merges)
        for name, add in (
            ("bos", out.add_bos_token_id),
            ("eos", out.add_eos_token_id),
            ("eot", out.add_eot_token_id),
            ("unk", out.add_unk_token_id),
            ("pad", out.add_pad_token_id),
        ):
            if name in self.ids:
                add(self.ids[name])
        out.add_add_bos_token(self.add_bos)
        out.add_add_eos_token(self.add_eos)
        out.add_add_space_prefix(self.add_space_prefix)
        if self.chat_template:
            out.add_chat_template(self.chat_template)


def shown(tokens: list[str]) -> str:
    """Give the first tokens of a list, for a sentence."""
    return ", ".join(tokens[:5]) + (f", … ({len(tokens)})" if len(tokens) > 5 else "")


def rewritten() -> str:
    """Give the notice for a tokenizer with a normalizer."""
    return _("The tokenizer changes the text before it cuts it; llama.cpp will not.")
