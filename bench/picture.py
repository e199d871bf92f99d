"""The README's picture: the real app with the embedded model, drawn to assets/app.svg by `python -m bench.picture`."""

import asyncio
import os
import tempfile
from pathlib import Path
from typing import Any

PICTURE = Path(__file__).parents[1] / "assets" / "app.svg"
QUESTIONS = ("Comment installer un modèle ?", "Comment utiliser un adaptateur LoRA ?")


def main() -> None:
    """Ask the questions and draw the screen."""
    with tempfile.TemporaryDirectory() as home:
        os.environ["VIGTUI_HOME"] = home
        os.environ["LANGUAGE"] = "en"
        PICTURE.write_text(asyncio.run(draw()), encoding="utf-8")


async def draw() -> str:
    """Give the picture as SVG."""
    from vigtui.backends.base import Generation, LoadOptions
    from vigtui.tui.app import VigtuiApp
    from vigtui.tui.cli.wish import Wish
    from vigtui.tui.desk import Desk

    none: dict[str, Any] = dict.fromkeys(("prompt", "system", "persona", "form", "max_memory", "session", "backend"))
    wish = Wish(**none, model="vigogneau", lora=(), generation=Generation(), loading=LoadOptions())
    app = VigtuiApp(Desk(wish))
    async with app.run_test(size=(96, 28)) as pilot:
        screen: Any = app.screen
        while app.desk.engine is None:
            await pilot.pause(0.05)
        for number, question in enumerate(QUESTIONS):
            screen.send(question)
            while len(app.desk.session.path()) < 2 * number + 2 or screen.busy:
                await pilot.pause(0.05)
        app.desk.session.rename("First steps")
        screen.entitle()
        screen.prompt.put("Et avec deux adaptateurs ?")
        screen.prompt.cursor_blink = False
        await pilot.pause(0.5)
        return app.export_screenshot()


if __name__ == "__main__":
    main()
