"""Weights in 8 and 4 bits by bitsandbytes."""

from typing import Literal

import pytest
from vigtui import assets
from vigtui.backends.base import Generation, LoadOptions, ModelFiles
from vigtui.backends.transformers import TransformersBackend
from vigtui.core.progress import silent

from .contract import chat, never, text_of

pytest.importorskip("bitsandbytes", reason="bitsandbytes has no build for this machine")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")


@pytest.mark.parametrize(("bits", "layer"), [("8bit", "Linear8bitLt"), ("4bit", "Linear4bit")])
def test_the_guide_keeps_its_answer(bits: Literal["8bit", "4bit"], layer: str) -> None:
    engine = TransformersBackend()
    files = ModelFiles("guide", "safetensors", assets.path("vigogneau/hf"))
    info = engine.load(files, LoadOptions(load_in=bits, device="cpu", threads=1), silent)
    try:
        assert layer in {type(module).__name__ for module in engine._runner.model.modules()}
        assert info.dtype.startswith(bits) and info.parameters > 4_000_000
        values = Generation(temperature=0.0, repetition_penalty=1.0, max_tokens=40)
        assert "`vigtui pull" in text_of(list(engine.stream(chat("Comment installer un modèle ?"), values, never)))
    finally:
        engine.close()
