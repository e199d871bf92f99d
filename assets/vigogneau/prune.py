"""Take training phrasings away that come too close to a held-out rewording: `python assets/vigogneau/prune.py`.

Only the phrasing files change, a line at a time; the held-out set is never touched.
"""

import re

from vigtui.assets.vigogneau import material, overlap, score

_TEXT = re.compile(r'^\s*("(?:[^"\\]|\\.)*"),?\s*$')


def main() -> None:
    """Rewrite the phrasing files without the offending lines and say what is left."""
    test = score.held_out()["rewordings"]
    rewordings = [
        overlap.content(text) for table in test.values() for lang in material.LANGUAGES for text in table[lang]
    ]
    for name in material.hands():
        path = material.HERE / "corpus" / f"{name}.toml"
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        kept = [line for line in lines if not _offends(line, rewordings)]
        print(f"{name}: {len(lines) - len(kept)} phrasings removed")
        path.write_text("".join(kept), encoding="utf-8")
    for key, table in material.phrasings(material.hands()).items():
        for lang, texts in table.items():
            if len(texts) < 40:
                print(f"{key} {lang}: only {len(texts)} phrasings left")


def _offends(line: str, rewordings: list[frozenset[str]]) -> bool:
    match = _TEXT.match(line)
    return match is not None and overlap.too_close(match[1], rewordings)


if __name__ == "__main__":
    main()
