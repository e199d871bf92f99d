"""Run the hub by hand: `python -m tests.hub [PORT]`, then `export HF_ENDPOINT=…` as it says."""

import argparse
import hashlib
import signal
from pathlib import Path
from threading import Event

from .server import Hub

_EMBEDDED = Path(__file__).resolve().parents[2] / "assets" / "vigogneau" / "vigogneau.gguf"
_QUANTIZATIONS = ("Q2_K", "Q4_0", "Q4_K_M", "Q5_K_M", "Q8_0")


def stock(hub: Hub) -> None:
    """Fill `hub` with the embedded model under several names, once with 256 MiB behind it, once gated."""
    model = _EMBEDDED if _EMBEDDED.is_file() else _noise(4 << 20)
    builds = {f"vigogne-2-7b-chat.{quantization}.gguf": model for quantization in _QUANTIZATIONS}
    hub.add("TheBloke/Vigogne-2-7B-Chat-GGUF", {"README.md": b"# A stand-in\n", **builds}, card={"license": "llama2"})
    hub.add("demo/vigogneau-gguf", {"vigogneau.Q4_K_M.gguf": model}, card={"license": "apache-2.0"}, downloads=12)
    big = (model.read_bytes() if isinstance(model, Path) else model) + _noise(256 << 20)
    hub.add("demo/big", {"big.Q8_0.gguf": big}, card={"license": "apache-2.0"})
    hub.add("demo/gated", {"gated.Q4_K_M.gguf": model}, gated="manual", card={"license": "llama2"})
    hub.add("demo/empty", {"README.md": b"# Nothing here\n"})
    hub.user("hf_accepted", {"demo/gated": "accepted"})
    hub.user("hf_stranger")
    hub.user("hf_rejected", {"demo/gated": "rejected"})


def _noise(size: int) -> bytes:
    return hashlib.shake_128(b"vigtui").digest(size)


def main() -> None:
    """Serve until Ctrl-C."""
    parser = argparse.ArgumentParser(prog="python -m tests.hub", description=__doc__)
    parser.add_argument("port", nargs="?", type=int, default=0)
    parser.add_argument("--rate", type=float, help="bytes per second of every large file")
    arguments = parser.parse_args()
    with Hub(arguments.port) as hub:
        stock(hub)
        if arguments.rate:
            hub.fault("/cdn/", rate=arguments.rate)
        print(f"export HF_ENDPOINT={hub.url}", flush=True)
        for repository in hub.repositories.values():
            print(f"  {repository.name}: {', '.join(repository.commits[repository.branches['main']])}", flush=True)
        print("tokens for demo/gated: hf_accepted, hf_stranger, hf_rejected", flush=True)
        stopped = Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: stopped.set())
        stopped.wait()


if __name__ == "__main__":
    main()
