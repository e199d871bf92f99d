"""What ships beside the code, as data."""

from pathlib import Path


def path(name: str) -> Path:
    """Give where the asset `name` lies on disk, such as "formats" or "vigogneau/vigogneau.gguf"."""
    return Path(__file__).parent / name
