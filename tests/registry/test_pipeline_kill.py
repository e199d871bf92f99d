"""kill -9 anywhere in the workshop: the registry stays valid, and the same order ends the same."""

import json
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from vigtui.core import paths
from vigtui.registry.record import Record
from vigtui.registry.remove import remove
from vigtui.registry.store import Registry

from .. import tiny

ROOT = Path(__file__).resolve().parents[2]
STAGES = 3
"""Merge, convert and quantize; the check has the conversions of base and adapter before it."""


class Forge:
    """Runs orders in forks of a process that has imported everything; `counts` are the events of the last run."""

    def __init__(self, counts: Path) -> None:
        command = [sys.executable, "-m", "tests.registry.forge", str(counts)]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, cwd=ROOT)
        self.counts: list[int] = []
        assert self._line() == "ready"

    def run(self, order: dict, job: int = -2, at: int = -1) -> int:
        assert self.process.stdin
        self.process.stdin.write(json.dumps({"order": order, "job": job, "at": at}) + "\n")
        self.process.stdin.flush()
        code, self.counts = json.loads(self._line())
        return code

    def _line(self) -> str:
        assert self.process.stdout
        return self.process.stdout.readline().strip()

    def close(self) -> str:
        assert self.process.stderr
        _out, said = self.process.communicate()
        return said


@pytest.fixture
def forge(home: Path, tmp_path: Path) -> Iterator[Forge]:
    running = Forge(tmp_path / "counts")
    yield running
    running.close()


@pytest.fixture
def order(tmp_path: Path) -> dict:
    base = tiny.write_llama(tmp_path / "base", width=64, ffn=64)
    adapter = tiny.adapter(tmp_path / "adapter", base)
    return {
        "work": "merge", "source": str(base), "adapters": [[str(adapter), 1.0]], "types": ["Q8_0"], "check": False,
        "tokens": 32, "threads": 1,
    }  # fmt: skip


def valid() -> list[Record]:
    """The registry has no damaged record and lists no product without its files; give the products."""
    registry = Registry()
    made = [record for record in registry.all() if record.origin == "made"]
    for record in made:
        assert all(file.path.is_file() and file.path.stat().st_size == file.size for file in record.files)
    assert registry.damaged == []
    return made


def tidy() -> None:
    """Nothing is left of the work."""
    assert [path for path in (paths.cache() / "workshop").iterdir() if path.suffix != ".lock"] == []
    products = paths.models() / "products"
    used = {file.path for record in valid() for file in record.files}
    assert {path for path in products.rglob("*") if path.is_file()} == used


@pytest.mark.parametrize("seed", range(5))
def test_killed_anywhere_it_ends_the_same(forge: Forge, order: dict, seed: int) -> None:
    """Each seed kills ten runs, one of them with its check: fifty in all. A run that had ended does not count."""
    product = warm(forge, order)
    *jobs, own = forge.counts
    assert len(jobs) == STAGES and min(*jobs, own) > 5
    chance, killed = random.Random(seed), 0
    while killed < 10:
        checked = order | {"check": killed == 9}
        job = chance.choice([-1, -1, *range(STAGES)])
        code = forge.run(checked, job, chance.randint(1, own if job == -1 else jobs[job]))
        assert code in (0, -9 if job == -1 else 7), forge.close()
        killed += code != 0
        assert len(valid()) <= 1
        assert forge.run(checked) == 0, forge.close()
        (again,) = valid()
        assert [file.sha256 for file in again.files] == [file.sha256 for file in product.files]
        tidy()
        remove(again)


def warm(forge: Forge, order: dict) -> Record:
    """Run the order once for the hashes of its sources and once to count; give its product, which is removed again."""
    for _time in range(2):
        assert forge.run(order) == 0, forge.close()
        (product,) = valid()
        remove(product)
    return product


def test_a_rerun_does_not_repeat_what_was_finished(forge: Forge, order: dict) -> None:
    assert forge.run(order) == 0
    remove(valid()[0])
    assert forge.run(order, job=2, at=1) == 7  # the last stage dies at once
    assert forge.run(order) == 0
    assert len(forge.counts) == 2  # the last stage and the run itself
    assert forge.run(order) == 0
    assert len(forge.counts) == 1  # it is there already


def test_another_order_goes_on_from_the_shared_stages(forge: Forge, order: dict) -> None:
    assert forge.run(order, job=2, at=1) == 7
    assert forge.run(order | {"types": ["F16"]}) == 0
    assert len(forge.counts) == 2  # the quantization alone, after the merge and the conversion of the order before
    assert {record.tag for record in valid()} == {"F16"}
