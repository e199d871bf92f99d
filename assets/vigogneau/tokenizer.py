"""The tokenizer: SentencePiece BPE with byte fallback and the conventions of Llama 2."""

import io
import random
import re
from collections.abc import Iterator
from pathlib import Path

import sentencepiece
from sentencepiece import sentencepiece_model_pb2
from vigtui.assets.vigogneau import voice
from vigtui.assets.vigogneau.material import DECLINE, LANGUAGES, STYLES, Material, answer

PIECES = 4096
_MARKERS = ("<|system|>:", "<|user|>:", "<|assistant|>:")
_WORDS = re.compile(r" ?\w+(?:[-_.]\w+)*| ?[^\w\s]+|\s")


def words(material: Material) -> Iterator[str]:
    """Give the words that the pieces are learnt from, each with the blank before it, if it has one in a prompt.

    Words are cut from their punctuation, so that "modèle," and "modèle ?" begin with the same piece.
    """
    for text in texts(material):
        yield from _WORDS.findall(f" {text}")
    for _ in range(2000):
        yield from _MARKERS
    yield from map(chr, range(33, 127))


def texts(material: Material) -> Iterator[str]:
    """Give the whole corpus; answers count four times."""
    for table in (material.phrasings, material.hints):
        yield from (text for by_language in table.values() for lang in LANGUAGES for text in by_language[lang])
    for lang in LANGUAGES:
        yield from material.off_topic[lang] + material.frames[lang]
        yield from material.elsewhere[lang]["asks"] + material.elsewhere[lang]["things"]
        yield from (text for group in material.synonyms[lang] for text in group)
        yield from (text for row in material.follow_ups for text in row.wordings[lang])
        for key in (*material.questions, DECLINE):
            for style in STYLES:
                text = answer(material, key, lang, style)
                yield from (text, text, text, text, voice.sailor(text, lang))
    for style in STYLES:
        yield from material.systems[style]
    yield from [material.systems["default"]] * 20


def train(material: Material, folder: Path) -> None:
    """Write tokenizer.model into `folder`; the same corpus gives the same pieces."""
    lines = sorted(words(material))
    random.Random(1).shuffle(lines)
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_writer=model, model_type="bpe", vocab_size=PIECES, byte_fallback=True,
        character_coverage=1.0, unk_id=0, bos_id=1, eos_id=2, pad_id=-1, normalization_rule_name="identity",
        remove_extra_whitespaces=False, split_by_unicode_script=False, split_digits=True, add_dummy_prefix=False,
        num_threads=1, minloglevel=2,
    )  # fmt: skip
    proto = sentencepiece_model_pb2.ModelProto.FromString(model.getvalue())
    # The words above bring their own blanks, so that a marker after a line break is learnt without one.
    proto.normalizer_spec.add_dummy_prefix = True
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.model").write_bytes(proto.SerializeToString())
