"""The second turn of a chat: tokens read and seconds to the first token, with and without the KV cache of the first."""

from . import models
from .table import head, row


def main() -> None:
    """Print the table."""
    from vigtui.backends.base import Done, Generation, LoadOptions, ModelFiles, Prompt
    from vigtui.backends.llama_cpp import LlamaCppBackend

    head("model", "second turn", "tokens read", "prefill, ms", "without ÷ with")
    for name, path, words in (("vigogneau", models.embedded(), 60), ("random 1.1B", models.billion(), 200)):
        engine = LlamaCppBackend()
        engine.load(ModelFiles("bench", "gguf", path), LoadOptions(), lambda *_step: None)
        generation = Generation(temperature=0.0, max_tokens=16)

        def turn(text: str, engine: LlamaCppBackend = engine, generation: Generation = generation) -> Done:
            done = list(engine.stream(Prompt(((text, True),)), generation, lambda: False))[-1]
            assert isinstance(done, Done)
            return done

        first = f"<|user|>: {'mot ' * words}\n<|assistant|>:"
        turn(first)
        # A fixed answer: what random weights say does not come back from text as the same tokens.
        second = f"{first} Oui.</s>\n<|user|>: Et ensuite ?\n<|assistant|>:"
        reused = turn(second)
        turn("x")
        fresh = turn(second)
        read = reused.prompt_tokens - reused.cached_tokens
        ratio = fresh.prefill_s / reused.prefill_s
        row(name, "cache kept", read, f"{reused.prefill_s * 1000:.1f}", f"{ratio:.1f}")
        row(name, "read again", fresh.prompt_tokens - fresh.cached_tokens, f"{fresh.prefill_s * 1000:.1f}", "1.0")
        engine.close()


if __name__ == "__main__":
    main()
