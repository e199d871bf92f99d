"""Start-up, warm: `vigtui --version` and `vigtui -p` to its first character, against bare Python importing click."""

import os
import sys
import tempfile
from pathlib import Path

from .table import head, middle, row, wall

VIGTUI = str(Path(sys.executable).with_name("vigtui"))


def main() -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory() as home:
        os.environ["VIGTUI_HOME"] = home
        bare = middle(lambda: wall([sys.executable, "-c", "import click; print(1)"]))
        version = middle(lambda: wall([VIGTUI, "--version"]))
        answer = middle(lambda: wall([VIGTUI, "-p", "Bonjour", "--no-stdin"], until=b""))
    head("what", "seconds", "ratio to bare Python with click")
    row("python -c 'import click'", f"{bare:.3f}", "1.0")
    row("vigtui --version", f"{version:.3f}", f"{version / bare:.1f}")
    row("vigtui -p, first character", f"{answer:.3f}", f"{answer / bare:.1f}")
