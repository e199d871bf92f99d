"""The conversation: asking, stopping, again, editing, versions, copying."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from textual.widgets import Static
from vigtui.backends.base import Beams, Done, Event, Generation, Prompt, Stop, Text
from vigtui.backends.echo import EchoBackend
from vigtui.chat.store import Store
from vigtui.core.errors import BackendError
from vigtui.registry.store import Registry
from vigtui.tui.screens.beams import BeamsScreen
from vigtui.tui.screens.blocks import BlocksScreen
from vigtui.tui.screens.models import ModelsScreen
from vigtui.tui.widgets.reply import Reply
from vigtui.tui.widgets.turn import Turn

from ...tiny import write_gguf
from .conftest import stage

CODE = "Deux blocs :\n\n```python\nx = 1\n```\n\net\n\n~~~sh\nls [b]\n~~~\n"


async def test_an_answer_streams_is_shown_as_markdown_and_kept() -> None:
    async with stage("Voici **une** réponse.") as one:
        await one.say("Bonjour")
        assert one.contents == one.drawn == ["Bonjour", "Voici **une** réponse."]
        reply = one.transcript.turns[-1]
        assert isinstance(reply, Reply)
        assert reply.body.source == "Voici **une** réponse."
        assert one.prompt.text == ""
        assert [entry.content for entry in Store().messages(one.session.id)] == one.contents


async def test_what_wrote_an_answer_stands_below_it() -> None:
    async with stage("un deux trois") as one:
        await one.say("Bonjour")
        reply = one.transcript.turns[-1]
        assert isinstance(reply, Reply)
        assert "vigogneau" in reply.head().plain
        assert "echo · 3 tokens" in reply.stamp().plain
        assert "tokens/s" in one.status.render_state().plain


async def test_new_lines_by_every_key() -> None:
    async with stage() as one:
        for key in ("a", "ctrl+j", "b", "shift+enter", "c", "alt+enter", "d"):
            await one.press(key)
        assert one.prompt.text == "a\nb\nc\nd"
        assert one.contents == []
        await one.press("enter")
        await one.quiet()
        assert one.contents == ["a\nb\nc\nd", "a\nb\nc\nd"]


async def test_an_empty_message_is_not_sent() -> None:
    async with stage() as one:
        await one.press("space", "ctrl+j", "enter")
        assert one.contents == []
        assert one.prompt.text == " \n"


async def test_up_recalls_what_was_sent() -> None:
    async with stage() as one:
        await one.say("premier")
        await one.say("second")
        await one.press("x", "up")
        assert one.prompt.text == "second"
        await one.press("up", "up")
        assert one.prompt.text == "premier"
        await one.press("down", "down")
        assert one.prompt.text == "x"


async def test_escape_stops_and_keeps_the_partial_answer() -> None:
    async with stage("un deux trois quatre") as one:
        one.engines.last.hold.clear()
        await one.send("compte")
        await one.until(lambda: one.screen.busy and one.screen._tokens[1] > 0)
        await one.press("escape")
        await one.quiet()
        last = one.session.path()[-1]
        assert (last.content, last.state) == ("un", "partial")
        assert "stopped" in one.transcript.turns[-1].stamp().plain  # pyright: ignore
        assert Store().messages(one.session.id)[-1].content == "un"


async def test_a_message_written_while_an_answer_comes_stays_in_the_prompt() -> None:
    async with stage("un deux") as one:
        one.engines.last.hold.clear()
        await one.send("compte")
        await one.until(lambda: one.screen.busy)
        await one.send("et encore")
        assert one.prompt.text == "et encore"
        one.engines.last.hold.set()
        await one.quiet()
        assert one.contents == ["compte", "un deux"]


async def test_again_makes_a_version_and_the_arrows_go_between_them() -> None:
    async with stage("une", "deux", "trois") as one:
        await one.say("Donne un nombre")
        await one.press("ctrl+r")
        await one.until(lambda: one.contents[-1:] == ["deux"])
        await one.quiet()
        assert one.transcript.turns[-1].place == (2, 2)
        await one.press("left")
        await one.until(lambda: one.drawn[-1] == "une")
        assert one.contents == ["Donne un nombre", "une"]
        await one.press("left")
        await one.quiet()
        assert one.contents[-1] == "une"
        await one.press("right")
        await one.until(lambda: one.drawn[-1] == "deux")
        assert Store().get(one.session.id).leaf == one.session.path()[-1].id


async def test_an_edited_message_is_sent_as_another_version() -> None:
    async with stage() as one:
        await one.say("première question")
        await one.say("suite")
        await one.press("ctrl+up", "up", "up", "up", "e")
        assert one.prompt.text == "première question"
        one.prompt.put("meilleure question")
        await one.press("enter")
        await one.until(lambda: one.contents == ["meilleure question", "meilleure question"])
        await one.quiet()
        assert one.transcript.turns[0].place == (2, 2)
        await one.press("left")
        await one.until(lambda: one.drawn[-1:] == ["suite"])
        assert one.contents == ["première question", "première question", "suite", "suite"]


async def test_editing_is_left_with_escape_and_the_draft_comes_back() -> None:
    async with stage() as one:
        await one.say("question")
        one.prompt.put("un brouillon")
        await one.press("ctrl+t")
        assert one.prompt.text == "question"
        await one.press("escape")
        assert one.prompt.text == "un brouillon"
        assert one.contents == ["question", "question"]


async def test_again_on_an_older_answer() -> None:
    async with stage("a", "b", "c") as one:
        await one.say("1")
        await one.say("2")
        await one.press("ctrl+up", "up", "up", "r")
        await one.until(lambda: one.contents == ["1", "c"])
        await one.quiet()
        assert len(one.session.siblings(one.session.path()[-1].id)) == 2


async def test_copy_goes_to_the_terminal_and_to_the_desktop(clipboard: Path) -> None:
    async with stage("une réponse") as one:
        await one.say("Bonjour")
        await one.press("ctrl+y")
        assert one.app.clipboard == "une réponse"
        await one.until(lambda: clipboard.exists() and clipboard.read_text() == "une réponse")


async def test_code_block_by_its_number() -> None:
    async with stage(CODE) as one:
        await one.say("du code")
        await one.press("ctrl+up", "2")
        assert one.app.clipboard == "ls [b]\n"
        await one.press("1")
        assert one.app.clipboard == "x = 1\n"
        await one.press("3")
        assert one.app.clipboard == "x = 1\n"


async def test_code_block_from_the_list() -> None:
    async with stage(CODE) as one:
        await one.say("du code")
        await one.press("ctrl+b")
        await one.opens(BlocksScreen)
        await one.press("down", "enter")
        await one.closes()
        assert one.app.clipboard == "x = 1\n"


async def test_pinning_is_kept() -> None:
    async with stage() as one:
        await one.say("important")
        await one.press("ctrl+up", "up", "p")
        await one.quiet()
        assert one.session.path()[0].pinned
        assert "pinned" in one.transcript.turns[0].head().plain


async def test_the_mouse_reaches_what_stands_above_a_message() -> None:
    async with stage("une", "deux") as one:
        await one.say("question")
        head = one.transcript.turns[1].query_one("Head")
        place = one.transcript.turns[1].head().plain.index("again")
        await one.pilot.click(head, offset=(place + 1, 0))
        await one.until(lambda: one.contents[-1:] == ["deux"])
        await one.quiet()
        place = one.transcript.turns[1].head().plain.index("‹")
        await one.pilot.click(one.transcript.turns[1].query_one("Head"), offset=(place, 0))
        await one.until(lambda: one.drawn[-1] == "une")


async def test_the_engines_death_is_told_and_the_next_message_is_answered() -> None:
    async with stage("un deux trois", "me revoici") as one:
        engine = one.engines.last
        whole = engine.stream

        def dying(*arguments):
            for event in whole(*arguments):
                yield event
                if getattr(event, "delta", ""):
                    raise BackendError(
                        "The engine process ended unexpectedly (SIGKILL).", "The next message starts it."
                    )

        engine.stream = dying
        await one.send("compte")
        await one.until(lambda: one.session.path()[-1].state == "error")
        await one.quiet()
        assert one.contents == ["compte", "un"]
        assert "ended unexpectedly" in one.transcript.turns[-1].stamp().plain  # pyright: ignore
        engine.stream = whole
        await one.say("encore là ?")
        assert one.contents[-1] == "me revoici"


async def test_a_message_too_long_for_the_context_goes_back_to_the_prompt() -> None:
    async with stage(context=64) as one:
        text = "mot " * 100
        await one.send(text)
        await one.until(lambda: one.prompt.text == text)
        await one.quiet()
        assert one.contents == []
        assert "too long" in one.status.render_state().plain
        assert [entry.content for entry in one.session.entries()] == [text]


async def test_the_line_where_the_model_stops_seeing() -> None:
    async with stage(context=128) as one:
        for number in range(8):
            await one.say(f"message {number} " + "mot " * 8)
        cut = [turn for turn in one.transcript.turns if turn.has_class("-cut")]
        unseen = [turn for turn in one.transcript.turns if turn.has_class("-unseen")]
        assert len(cut) == 1
        assert unseen
        assert one.transcript.turns.index(cut[0]) == len(unseen)
        assert "above" in str(cut[0].border_title)


async def test_the_count_is_what_will_be_sent() -> None:
    async with stage("réponse") as one:
        empty = one.status.state.used
        one.prompt.put("combien de mots")
        await one.until(lambda: one.status.state.exact and one.status.state.used != empty)
        counted = one.status.state.used
        await one.say("combien de mots")
        assert one.session.path()[-1].stamp.prompt_tokens == counted  # pyright: ignore


async def test_a_count_that_only_the_server_knows_is_about_so_much(monkeypatch: pytest.MonkeyPatch) -> None:
    async with stage("réponse") as one:
        assert "≈" not in one.status.render_state().plain
    monkeypatch.setattr(EchoBackend, "supports", EchoBackend.supports | {"chat"})
    async with stage("réponse") as one:
        await one.say("combien de mots")
        shown = one.status.render_state().plain
        assert f"≈ {one.status.state.used} of 1,024 tokens, ≈ {1024 - (one.status.state.used or 0)} free" in shown


async def test_nothing_in_a_text_is_markup_or_an_escape() -> None:
    nasty = "[b]gras[/b] [@click=app.quit]ici[/] \x1b[31mrouge\x1b]0;titre\x07 \u202efin [/nope] [$x"
    async with stage(nasty) as one:
        await one.say(nasty)
        shown = one.app.export_screenshot()
        assert "\x1b" not in shown
        assert "[b]gras[/b]" in shown.replace("&#160;", " ")
        one.session.rename(nasty)
        await one.screen.redraw()
        await one.press("ctrl+t")
        assert "\x1b" not in one.prompt.text


async def test_keys_typed_in_one_burst_stay_in_order() -> None:
    async with stage() as one:
        from textual import events

        for key, character in [*((c, c) for c in "abc"), ("enter", "\r"), *((c, c) for c in "def")]:
            one.app.post_message(events.Key(key, character))
        await one.until(lambda: one.contents[:1] == ["abc"] and one.prompt.text == "def")


async def test_a_message_can_be_walked_to_and_back() -> None:
    async with stage() as one:
        await one.say("question")
        await one.press("ctrl+up")
        assert isinstance(one.app.focused, Turn)
        await one.press("down")
        assert one.app.focused is one.prompt


async def test_another_model_answers_once_beside_the_first(tmp_path: Path) -> None:
    Registry().add(write_gguf(tmp_path / "tiny.gguf"))
    async with stage() as one:
        await one.say("Bonjour ?")
        first = one.desk.engine
        await one.press("f10")
        await one.opens(ModelsScreen)
        await one.press(*"tiny", "enter")
        await one.until(lambda: len(one.session.siblings(one.session.path()[-1].id)) == 2)
        await one.until(lambda: not one.screen.busy and not one.desk.visited and not one.screen.loading_now)
        answers = one.session.siblings(one.session.path()[-1].id)
        assert [e.stamp.model for e in answers if e.stamp] == ["vigogneau", "tiny:F32"]
        assert one.desk.engine is first and one.desk.source.name == "vigogneau"
        await one.say("Et après ?")
        last = one.session.path()[-1].stamp
        assert last is not None and last.model == "vigogneau"


async def test_a_visit_that_fails_leaves_the_first_answer(tmp_path: Path) -> None:
    Registry().add(write_gguf(tmp_path / "tiny.gguf"))
    async with stage() as one:
        await one.say("Bonjour ?")
        before, one.engines.failure = one.contents, BackendError("It cannot be loaded.")
        await one.press("ctrl+up", "w")
        await one.opens(ModelsScreen)
        await one.press(*"tiny", "enter")
        await one.until(lambda: len(one.app.screen_stack) == 1 and one.screen._before is None)
        await one.until(lambda: one.contents == before and not one.screen.loading_now)
        await one.until(lambda: one.drawn == before)
        assert not one.desk.visited and one.desk.source.name == "vigogneau"


async def test_the_leading_beam_is_marked_and_all_can_be_seen() -> None:
    async with stage() as one:
        held = threading.Event()

        def searching(prompt: Prompt, generation: Generation, stop: Stop) -> Iterator[Event]:
            yield Text("Le lama", 2)
            yield Beams((("Le lama vit haut", -1.5), ("Le lama dort", -2.25)))
            held.wait(20)
            yield Text(" vit haut", 2)
            yield Done("stop", 3, 0, 4, 0.1, 0.1, 0)

        one.engines.last.stream = searching  # pyright: ignore[reportAttributeAccessIssue]
        await one.send("Où ?")
        await one.until(lambda: one.screen.reply is not None and one.screen.reply.ahead.display)
        assert one.screen.reply is not None
        assert "vit haut" in str(one.screen.reply.ahead.content)
        await one.pilot.press("f12")
        await one.until(lambda: isinstance(one.app.screen, BeamsScreen))
        seen = str(one.app.screen.query_one(Static).content)
        assert "Le lama dort" in seen and "-2" in seen
        await one.pilot.press("escape")
        held.set()
        await one.until(lambda: not one.screen.busy)
        assert one.contents[-1] == "Le lama vit haut"
        assert not one.screen.query(Reply).last().ahead.display
