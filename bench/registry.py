"""The registry: `vigtui list` with 1,000 records, and sniffing a sparse GGUF file of 4 GB, against their goals."""

import os
import statistics
import struct
import sys
import tempfile
import time
from pathlib import Path

from .table import head, middle, row, wall

VIGTUI = str(Path(sys.executable).with_name("vigtui"))
RECORDS, LIST_GOAL, SNIFF_GOAL = 1000, 0.2, 0.020


def main() -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory() as home:
        os.environ["VIGTUI_HOME"] = home
        bare = middle(lambda: wall([VIGTUI, "list"]))
        publish(Path(home))
        full = middle(lambda: wall([VIGTUI, "list"]))
        file = sparse(Path(home) / "4gb.gguf")
        sniffed = statistics.median(sniff(file) for _run in range(7))
    head("what", "seconds", "goal", "goal ÷ measured")
    row("vigtui list, no records", f"{bare:.3f}", "–", "–")
    row(f"vigtui list, {RECORDS:,} records", f"{full:.3f}", LIST_GOAL, f"{LIST_GOAL / full:.1f}")
    row("sniff of a 4 GB sparse GGUF", f"{sniffed:.4f}", SNIFF_GOAL, f"{SNIFF_GOAL / sniffed:.1f}")


def publish(home: Path) -> None:
    """Write records of models whose files are there, as a pull leaves them."""
    from vigtui.registry import record
    from vigtui.registry.record import File, Record

    (home / "models" / "records").mkdir(parents=True)
    for n in range(RECORDS):
        file = home / f"{n}.gguf"
        file.touch()
        one = Record(
            f"vigogne-{n}",
            "gguf",
            "Q4_K_M",
            files=(File(file, 4_081_004_224, f"{n:064x}"),),
            source=f"TheBloke/Vigogne-{n}-GGUF@{n:040x}",
            format="vigogne-chat-v2",
            context=4096,
            licence="llama2",
            made_with={"revision": "main"},
            generation={"temperature": 0.1, "repetition_penalty": 1.1},
            architecture="llama",
            parameters=6_738_415_616,
            quantization="Q4_K_M",
            added="2026-11-21T01:00:00+00:00",
        )
        (home / "models" / "records" / f"{one.name}@{one.tag}.json").write_text(record.dump(one), encoding="utf-8")


def sparse(path: Path) -> Path:
    """Write the header of a 7B model with 32,000 tokens and 291 tensors, and 4 GB of nothing."""

    def text(value: str) -> bytes:
        return struct.pack("<Q", len(value.encode())) + value.encode()

    words = b"".join(text(f"token-{n}") for n in range(32_000))
    keys = [text("general.architecture") + struct.pack("<I", 8) + text("llama")]
    keys += [text("llama.context_length") + struct.pack("<II", 4, 4096)]
    keys += [text("tokenizer.ggml.tokens") + struct.pack("<IIQ", 9, 8, 32_000) + words]
    keys += [text("tokenizer.ggml.scores") + struct.pack("<IIQ", 9, 6, 32_000) + bytes(4 * 32_000)]
    keys += [text("tokenizer.ggml.token_type") + struct.pack("<IIQ", 9, 5, 32_000) + bytes(4 * 32_000)]
    size = 4 * 10**9 // 291 // 32 * 32
    tensors = [text(f"blk.{n}.weight") + struct.pack("<IQIQ", 1, size // 18 * 32, 2, n * size) for n in range(291)]
    with path.open("wb") as file:
        file.write(b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(keys)) + b"".join(keys) + b"".join(tensors))
        file.truncate(4 * 10**9 + (1 << 22))
    return path


def sniff(path: Path) -> float:
    """Give the seconds that one look takes, in this process."""
    from vigtui.registry.sniff import sniff

    began = time.perf_counter()
    found = sniff(path)
    assert found.kind == "gguf", found
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
