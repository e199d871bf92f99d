"""The dialogs: conversations, title, model, format, persona, adapters, system message, generation values, help."""

import pytest
from textual.command import CommandPalette
from textual.widgets import Checkbox, Input, OptionList, TextArea
from vigtui.chat.formats import System
from vigtui.chat.store import Store
from vigtui.core import paths
from vigtui.core.errors import CapacityError
from vigtui.registry.store import Registry
from vigtui.tui.desk import Adapter
from vigtui.tui.screens.adapters import AdaptersScreen
from vigtui.tui.screens.ask import Ask
from vigtui.tui.screens.chats import ChatsScreen
from vigtui.tui.screens.confirm import Confirm
from vigtui.tui.screens.formats import FormatsScreen
from vigtui.tui.screens.generation import GenerationScreen
from vigtui.tui.screens.help import HelpScreen
from vigtui.tui.screens.models import ModelsScreen
from vigtui.tui.screens.personas import PersonasScreen
from vigtui.tui.screens.system import SystemScreen

from ...tiny import write_gguf
from .conftest import stage


async def test_a_new_conversation_leaves_the_old_one_kept() -> None:
    async with stage() as one:
        await one.say("la première")
        first = one.session.id
        await one.press("ctrl+n")
        await one.until(lambda: one.session.id != first)
        assert one.drawn == []
        await one.say("la seconde")
        assert [kept.title for kept in Store().list()] == ["la seconde", "la première"]


async def test_a_conversation_is_found_by_a_word_and_opened_at_it() -> None:
    async with stage("le lama crache", "rien") as one:
        await one.say("parle du lama")
        first = one.session.id
        await one.press("ctrl+n")
        await one.until(lambda: one.session.id != first)
        await one.say("autre chose")
        await one.press("ctrl+o")
        chats = await one.opens(ChatsScreen)
        await one.press(*"crache")
        await one.until(lambda: len(chats.shown) == 1)
        assert "le lama crache" in chats.shown[0].detail
        await one.press("enter")
        await one.closes()
        assert one.session.id == first
        assert one.drawn == ["parle du lama", "le lama crache"]
        assert one.app.focused is one.transcript.turns[1]


async def test_a_conversation_is_renamed() -> None:
    async with stage() as one:
        await one.say("sans titre")
        await one.press("f2")
        ask = await one.opens(Ask)
        ask.query_one(Input).value = "Un beau titre"
        await one.press("enter")
        await one.closes()
        assert Store().get(one.session.id).title == "Un beau titre"
        assert "Un beau titre" in str(one.screen.query_one("#heading").content)  # pyright: ignore


async def test_a_conversation_is_deleted_only_when_confirmed() -> None:
    async with stage() as one:
        await one.say("à jeter")
        old = one.session.id
        await one.press("f8")
        await one.opens(Confirm)
        await one.press("enter")
        await one.closes()
        assert one.session.id == old
        await one.press("f8")
        await one.opens(Confirm)
        await one.press("right", "enter")
        await one.closes()
        await one.until(lambda: one.session.id != old)
        assert Store().list() == []
        assert one.drawn == []


async def test_rename_and_delete_in_the_list() -> None:
    async with stage() as one:
        await one.say("la première")
        await one.press("ctrl+n")
        await one.until(lambda: not one.drawn)
        await one.say("la seconde")
        await one.press("ctrl+o")
        chats = await one.opens(ChatsScreen)
        await one.press("down", "f2")
        ask = await one.opens(Ask)
        ask.query_one(Input).value = "renommée"
        await one.press("enter")
        await one.until(lambda: one.app.screen is chats and "renommée" in [item.title for item in chats.shown])
        chats.choices.highlighted = 0
        assert chats.current.title == "renommée"
        await one.press("f8")
        await one.opens(Confirm)
        await one.press("y")
        await one.until(lambda: one.app.screen is chats and len(chats.shown) == 1)
        await one.press("escape")
        await one.closes()
        assert [kept.title for kept in Store().list()] == ["la seconde"]
        assert one.contents == ["la seconde", "la seconde"]


async def test_the_model_is_switched_in_the_running_conversation(tmp_path) -> None:
    Registry().add(write_gguf(tmp_path / "tiny.gguf"))
    async with stage() as one:
        await one.say("avant")
        await one.press("ctrl+l")
        models = await one.opens(ModelsScreen)
        await one.press(*"tiny")
        await one.until(lambda: len(models.shown) == 1)
        await one.press("enter")
        await one.closes()
        await one.until(lambda: one.desk.source.name.startswith("tiny") and not one.screen.loading_now)
        await one.say("après")
        assert [e.stamp.model for e in one.session.path() if e.stamp] == ["vigogneau", one.desk.source.name]
        assert len(one.engines.opened) == 2


async def test_a_model_that_does_not_fit_leaves_the_old_one(tmp_path) -> None:
    Registry().add(write_gguf(tmp_path / "tiny.gguf"))
    async with stage() as one:
        one.engines.failure = CapacityError("It does not fit.", "Choose a smaller one.")
        engine = one.desk.engine
        one.engines.failure = None
        opener = one.desk._opener

        def full(record, *rest):
            if record.name == "tiny":
                raise CapacityError("It does not fit.", "Choose a smaller one.")
            return opener(record, *rest)

        one.desk._opener = full
        one.screen.start_load(["tiny"])
        await one.until(lambda: not one.screen.loading_now)
        assert one.desk.source.name == "vigogneau"
        assert one.desk.engine is not engine
        await one.say("toujours là ?")
        assert one.contents[-1] == "toujours là ?"


async def test_the_load_shows_how_far_it_is_and_can_be_stopped() -> None:
    async with stage() as one:
        import threading

        opener, reached = one.desk._opener, threading.Event()

        def slow(record, loading, wanted, progress):
            while True:
                progress("load", 3, 10)
                reached.set()
                threading.Event().wait(0.01)

        one.desk._opener, one.desk.record = slow, None
        one.screen.start_load(["vigogneau"])
        await one.until(lambda: "30 %" in one.status.render_state().plain)
        await one.press("escape")
        await one.until(lambda: not one.screen.loading_now)
        one.desk._opener = opener
        assert one.desk.engine is one.engines.last


async def test_the_format_is_changed_and_given_back() -> None:
    async with stage() as one:
        await one.press("f4")
        formats = await one.opens(FormatsScreen)
        assert "vigogne-chat-v2" in formats.shown[0].detail
        await one.press(*"chatml", "enter")
        await one.closes()
        await one.say("Bonjour")
        assert one.session.path()[-1].stamp.format == "chatml"  # pyright: ignore
        assert "chatml" in one.status.render_state().plain
        await one.press("f4")
        formats = await one.opens(FormatsScreen)
        formats.choices.highlighted = 0
        await one.press("enter")
        await one.closes()
        assert one.session.conversation.format is None


async def test_a_persona_speaks_and_goes() -> None:
    async with stage() as one:
        await one.press("f3")
        personas = await one.opens(PersonasScreen)
        assert len(personas.shown) >= 9
        await one.press(*"socratic", "enter")
        await one.closes()
        assert "work out" in str(one.screen.query_one("#welcome").content)  # pyright: ignore
        await one.say("pourquoi ?")
        assert "Socratic tutor" in one.engines.last.prompts[-1].text
        assert one.session.path()[-1].stamp.generation["temperature"] == 0.4  # pyright: ignore
        await one.press("f3")
        personas = await one.opens(PersonasScreen)
        personas.choices.highlighted = 0
        await one.press("enter")
        await one.closes()
        await one.say("et maintenant ?")
        assert "Socratic tutor" not in one.engines.last.prompts[-1].text


async def test_a_persona_of_the_users_own() -> None:
    folder = paths.config() / "personas"
    folder.mkdir(parents=True)
    (folder / "mienne.toml").write_text('description = "[b]à moi"\nsystem = "Tu es à moi."\n')
    (folder / "broken.toml").write_text("description = ")
    async with stage() as one:
        await one.press("f3")
        await one.opens(PersonasScreen)
        await one.press(*"mienne", "enter")
        await one.closes()
        await one.say("qui es-tu ?")
        assert "Tu es à moi." in one.engines.last.prompts[-1].text


@pytest.mark.parametrize(("downs", "expected"), [(0, "default"), (2, "empty"), (3, "none")])
async def test_the_system_message_in_its_states(downs: int, expected: str) -> None:
    async with stage(system="un texte") as one:
        await one.press("ctrl+s")
        screen = await one.opens(SystemScreen)
        assert screen.query_one(OptionList).highlighted == 1
        screen.query_one(OptionList).highlighted = downs
        await one.press("ctrl+s")
        await one.closes()
        assert one.session.conversation.system == System(expected)  # pyright: ignore
        await one.say("Bonjour")
        assert ("<|system|>" in one.engines.last.prompts[-1].text) is (expected != "none")


async def test_an_own_system_message() -> None:
    async with stage() as one:
        await one.press("ctrl+s")
        screen = await one.opens(SystemScreen)
        await one.press("down", "enter")
        await one.until(lambda: isinstance(one.app.focused, TextArea))
        screen.query_one(TextArea).text = "Réponds en [vers]."
        await one.press("ctrl+s")
        await one.closes()
        await one.say("Bonjour")
        assert "Réponds en [vers]." in one.engines.last.prompts[-1].text
        assert Store().get(one.session.id).system == System("text", "Réponds en [vers].")


async def test_generation_values_and_where_they_come_from() -> None:
    async with stage(persona="socratic") as one:
        await one.press("ctrl+g")
        screen = await one.opens(GenerationScreen)

        def source(name: str) -> str:
            return str(screen.query_one(f"#source-{name}").content)

        assert source("temperature") == "from the persona"
        assert source("top_p") == "vigtui's default"
        assert source("repetition_penalty") == "from the model"
        assert source("seed") == "not set"
        screen.query_one("#temperature", Input).value = "hot"
        await one.press("ctrl+s")
        assert one.app.screen is screen
        screen.query_one("#temperature", Input).value = "0.7"
        screen.query_one("#stop", Input).value = "FIN 'deux mots' \\n\\n"
        await one.until(lambda: source("temperature") == "this conversation")
        await one.press("ctrl+s")
        await one.closes()
        assert one.session.conversation.generation.temperature == 0.7
        assert one.session.conversation.generation.stop == ("FIN", "deux mots", "\n\n")
        await one.say("Bonjour")
        assert one.session.path()[-1].stamp.generation["temperature"] == 0.7  # pyright: ignore
        assert Store().get(one.session.id).generation.temperature == 0.7
        await one.press("ctrl+g")
        screen = await one.opens(GenerationScreen)
        assert screen.query_one("#stop", Input).value == "FIN 'deux mots' \\n\\n"
        await one.press("f8", "ctrl+s")
        await one.closes()
        assert one.session.conversation.generation.given() == {}


async def test_adapters_are_switched_and_scaled(tmp_path, monkeypatch) -> None:
    from vigtui.registry import open as opening

    monkeypatch.setattr(opening, "adapter", lambda ref, base=None, progress=None, backend="": (tmp_path / ref, 1.0))
    async with stage(lora=("marin=0.5",)) as one:
        assert one.engines.last.adapters == [(tmp_path / "marin", 0.5)]
        await one.press("f5")
        screen = await one.opens(AdaptersScreen)
        index = [adapter.ref for adapter in screen.adapters].index("marin")
        screen.query_one(f"#scale-{index}", Input).value = "0,25"
        await one.press("ctrl+s")
        await one.closes()
        await one.until(lambda: one.engines.last.adapters == [(tmp_path / "marin", 0.25)])
        await one.ready()
        await one.say("Ahoy")
        assert one.session.path()[-1].stamp.adapters == (("marin", 0.25),)  # pyright: ignore
        assert "marin × 0.25" in one.transcript.turns[-1].head().plain
        await one.press("f5")
        screen = await one.opens(AdaptersScreen)
        index = [adapter.ref for adapter in screen.adapters].index("marin")
        screen.query_one(f"#on-{index}", Checkbox).value = False
        await one.press("ctrl+s")
        await one.closes()
        await one.until(lambda: one.engines.last.adapters == [])
        assert Adapter("marin", 0.25, False) in one.desk.adapters()


async def test_an_adapter_is_applied_to_a_model_that_is_not_registered(tmp_path, monkeypatch) -> None:
    from vigtui.registry import open as opening

    monkeypatch.setattr(opening, "adapter", lambda ref, base=None, progress=None, backend="": (tmp_path / ref, 1.0))
    async with stage(model=str(write_gguf(tmp_path / "tiny.gguf"))) as one:
        await one.press("f5")
        screen = await one.opens(AdaptersScreen)
        screen.query_one("#other", Input).value = "marin=0.5"
        await one.press("ctrl+s")
        await one.closes()
        await one.until(lambda: one.engines.last.adapters == [(tmp_path / "marin", 0.5)])
        assert one.desk.source.name.startswith("tiny")


async def test_help_lists_the_keys() -> None:
    async with stage() as one:
        await one.press("f1")
        screen = await one.opens(HelpScreen)
        text = screen.text().plain
        for word in ("^n", "f5", "ctrl+j", "Version before", "Copy code block"):
            assert word in text or word.replace("ctrl+", "^") in text
        await one.press("escape")
        await one.closes()


async def test_the_palette_has_every_action_and_runs_them() -> None:
    async with stage() as one:
        await one.say("bonjour")
        titles = {command.title for command in one.app.get_system_commands(one.screen)}
        assert {"New conversation", "Model", "Adapters", "Generation values", "Quit", "Copy code"} <= titles
        await one.press("ctrl+p")
        await one.opens(CommandPalette)
        await one.press(*"generation")
        await one.until(lambda: one.app.screen.query_one(OptionList).option_count > 0)
        await one.press("enter")
        await one.opens(GenerationScreen)


async def test_light_and_dark_are_kept() -> None:
    async with stage() as one:
        one.app.action_daylight()
        assert one.app.theme == "vigtui-light"
    async with stage() as one:
        assert one.app.theme == "vigtui-light"


async def test_the_conversation_goes_on_after_the_app_was_left() -> None:
    async with stage() as one:
        await one.say("à suivre")
        old = one.session.id
    async with stage(session="") as one:
        assert one.session.id == old
        assert one.drawn == ["à suivre", "à suivre"]


async def test_nothing_is_kept_when_nothing_shall_be() -> None:
    async with stage(no_save=True) as one:
        await one.say("secret")
        await one.press("ctrl+o")
        chats = await one.opens(ChatsScreen)
        assert chats.shown == []
    assert Store().list() == []
