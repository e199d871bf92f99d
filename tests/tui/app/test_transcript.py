"""Long conversations: a window of mounted messages over a path of any length."""

from dataclasses import replace

from vigtui.chat.record import Entry, Stamp, new_id
from vigtui.chat.session import Session
from vigtui.chat.store import Store
from vigtui.tui.widgets.transcript import MOST, PAGE

from .conftest import stage


def long(count: int) -> str:
    """Store a conversation of `count` messages and give its id."""
    store = Store()
    session = Session.new(store)
    entries: list[Entry] = []
    for number in range(count):
        role = "assistant" if number % 2 else "user"
        stamp = Stamp(model="vigogneau", backend="echo") if number % 2 else None
        parent = entries[-1].id if entries else None
        entries.append(Entry(new_id(12), session.id, parent, role, f"message **{number}**", stamp=stamp))
    store.save(replace(session.conversation, title="longue", leaf=entries[-1].id), entries)
    return session.id


async def test_ten_thousand_messages_open_at_their_end() -> None:
    async with stage(session=long(10_000)) as one:
        assert one.drawn[-1] == "message **9999**"
        assert len(one.drawn) <= MOST + PAGE
        assert one.transcript.scroll_y == one.transcript.max_scroll_y
        await one.say("et la suite ?")
        assert one.contents[-2:] == ["et la suite ?", "et la suite ?"]
        assert len(one.session.path()) == 10_002


async def test_older_messages_come_where_the_reader_scrolls_and_stay_bounded() -> None:
    async with stage(session=long(300)) as one:
        for _page in range(12):
            first = one.transcript.first
            held = one.transcript.turns[0]
            one.transcript.scroll_home(animate=False)
            await one.until(lambda first=first: one.transcript.first < first and not one.transcript._filling)
            assert held.region.y >= one.transcript.region.y  # what was read is where it was, not far above
            assert len(one.drawn) <= MOST + PAGE
        assert not one.transcript.at_end
        await one.press("ctrl+end")
        await one.until(lambda: one.drawn[-1] == "message **299**")
        assert one.transcript.scroll_y == one.transcript.max_scroll_y


async def test_a_message_far_back_is_found_and_newer_ones_come_again() -> None:
    id = long(200)
    async with stage() as one:
        entry = Store().messages(id)[40]
        one.screen.run_worker(one.screen.open(id, entry.id))
        await one.until(lambda: one.app.focused is not None and getattr(one.app.focused, "entry", None) == entry)
        assert len(one.session.path()) == 200
        assert not one.transcript.at_end

        def down() -> bool:
            one.transcript.scroll_end(animate=False, immediate=True)
            return one.transcript.at_end

        await one.until(down)
        assert one.drawn[-1] == "message **199**"
        assert len(one.drawn) <= MOST + PAGE


async def test_reading_on_is_not_disturbed_by_an_answer() -> None:
    async with stage(" ".join(["mot"] * 400), session=long(40)) as one:
        one.engines.last.hold.clear()
        await one.send("longue réponse")
        await one.until(lambda: one.screen.busy and one.screen._tokens[1] > 0)
        await one.press("pageup", "pageup")
        await one.pilot.pause()
        place = one.transcript.turns[0].region.y
        one.engines.last.hold.set()
        await one.quiet()
        assert one.transcript.turns[0].region.y == place


async def test_a_small_terminal_and_a_large_one() -> None:
    async with stage(session=long(60)) as one:
        for size in ((20, 6), (200, 60), (40, 12), (10, 3), (80, 24)):
            await one.pilot.resize_terminal(*size)
            await one.pilot.pause()
        await one.say("toujours là")
        assert one.drawn[-1] == "toujours là"
