"""The house keeps its shape: imports go one way, nothing heavy at module level, the wheel holds every room."""

import ast
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MAY_IMPORT = {
    "assets": set(),
    "core": {"assets"},
    "backends": {"core", "assets"},
    "chat": {"backends", "core", "assets"},
    "registry": {"backends", "core", "assets"},
    "server": {"chat", "registry", "backends", "core", "assets"},
    "tui": {"server", "chat", "registry", "backends", "core", "assets"},
}
HEAVY = {
    "torch",
    "transformers",
    "gptqmodel",
    "llama_cpp",
    "huggingface_hub",
    "textual",
    "numpy",
    "gguf",
    "openai",
    "starlette",
    "uvicorn",
    "peft",
}


def modules() -> list[Path]:
    return [
        path for room in MAY_IMPORT for path in sorted((ROOT / room).rglob("*.py")) if "vigogneau" not in path.parts
    ]


def imports(path: Path, everywhere: bool) -> Iterator[str]:
    """Names that `path` imports, absolute ("vigtui.core.errors"), at module level or everywhere."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    guarded = {
        id(child)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for child in ast.walk(node)
    }
    package = ["vigtui", *path.relative_to(ROOT).parent.parts]
    for node in ast.walk(tree) if everywhere else tree.body:
        if id(node) in guarded:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_one_way(path: Path) -> None:
    room = path.relative_to(ROOT).parts[0]
    for name in imports(path, everywhere=True):
        parts = name.split(".")
        if parts[0] == "vigtui":
            assert parts[1] == room or parts[1] in MAY_IMPORT[room], f"{path} imports {name}"
        assert parts[0] != "textual" or room == "tui"


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_heavy_at_module_level(path: Path) -> None:
    place = path.relative_to(ROOT).parts
    allowed = {"textual"} if place[0] == "tui" and place[1] != "cli" else set()  # the app is about it
    assert not {name.split(".")[0] for name in imports(path, everywhere=False)} & (HEAVY - allowed)


def tracked(*patterns: str) -> set[str]:
    out = subprocess.run(["git", "ls-files", *patterns], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(out.stdout.split())


def test_the_wheel_holds_every_room_and_asset(tmp_path: Path) -> None:
    source = tmp_path / "source"  # a copy of what is tracked: an old build/ folder would slip into the wheel
    for name in tracked():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, source / name)
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(source)]
    subprocess.run(command, check=True, capture_output=True)
    [wheel] = tmp_path.glob("*.whl")
    held = {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith("vigtui/")}
    code = {f"vigtui/{p}" for p in tracked("*.py") if p.split("/")[0] in MAY_IMPORT and "vigogneau" not in p}
    data = {
        f"vigtui/{p}"
        for p in tracked("assets")
        if p.endswith((".toml", ".txt", ".mo", ".gguf")) and "/corpus/" not in p
    }
    data |= {f"vigtui/{p}" for p in tracked("*.tcss")}
    assert held - {"vigtui/assets/vigogneau/README.md"} == code | data
    assert sum(entry.file_size for entry in zipfile.ZipFile(wheel).infolist() if entry.filename.endswith(".gguf")) < 7e6


def test_every_package_is_declared() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    folders = {path.parent for path in modules() if path.name == "__init__.py"}
    expected = {"vigtui." + ".".join(folder.relative_to(ROOT).parts) for folder in folders}
    assert set(project["tool"]["setuptools"]["packages"]) == expected


@pytest.mark.parametrize("arguments", [["--version"], ["--help"]])
def test_the_first_words_import_nothing_heavy(arguments: list[str]) -> None:
    script = (
        "import sys\nfrom vigtui.tui.cli import main\n"
        f"sys.argv = ['vigtui', *{arguments!r}]\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        f"print(sorted(set(sys.modules) & {HEAVY!r}), file=sys.stderr)"
    )
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert out.stderr.strip().splitlines()[-1] == "[]"
    assert out.stdout
