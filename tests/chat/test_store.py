"""The database: private, searchable, shared, and never opened when it comes from the future."""

import os
import sqlite3
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from vigtui.backends.base import Generation
from vigtui.chat.formats import System
from vigtui.chat.record import Conversation, Entry, Stamp, new_id
from vigtui.chat.schema import MIGRATIONS
from vigtui.chat.store import Store
from vigtui.core import paths
from vigtui.core.errors import CapacityError, FormatError, NotFoundError, UsageError, VigtuiError


def fill(store: Store, *texts: str, **fields) -> Conversation:
    conversation = store.create(Conversation(**fields))
    entries: list[Entry] = []
    for text in texts:
        parent = entries[-1].id if entries else None
        entries.append(Entry(new_id(12), conversation.id, parent, "user", text))
    store.save(conversation, entries)
    return conversation


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_what_goes_in_comes_out() -> None:
    store = Store()
    conversation = Conversation(
        title="Un titre",
        model="vigogneau",
        format="alpaca",
        system=System("text", "Sois bref."),
        persona="plain",
        generation=Generation(temperature=0.5, stop=("a", "b")),
        settings={"lora": ["x", 0.5]},
        hidden=True,
        pinned=True,
        leaf="abc",
    )
    stamp = Stamp(model="m", generation={"stop": ["x"]}, adapters=(("marin", 0.5),), seed=3, dropped=("a",))
    entry = Entry("abc", conversation.id, None, "assistant", "é\0\n😀", "error", 12.5, True, stamp)
    store.save(conversation, [entry])
    assert Store().get(conversation.id) == conversation
    assert Store().messages(conversation.id) == [entry]
    store.delete(conversation.id)
    assert store.messages(conversation.id) == [] and store.list(hidden=True) == [] and store.search("é") == []


def test_listing() -> None:
    store = Store()
    old, new = fill(store, "a", updated=1.0), fill(store, "b", updated=2.0)
    kept, shot = fill(store, "c", updated=0.5, pinned=True), fill(store, "d", updated=3.0, hidden=True)
    assert [one.id for one in store.list()] == [kept.id, new.id, old.id]
    assert [one.id for one in store.list(hidden=True, limit=2)] == [kept.id, shot.id]
    assert store.last() == shot and store.last(hidden=False) == new


def test_abbreviated_ids() -> None:
    store = Store()
    for id in ("aa001111", "aa002222", "bb003333"):
        fill(store, id, id=id)
    assert store.get("b").id == store.get("BB003").id == "bb003333"
    assert store.get("aa001111").id == "aa001111"
    with pytest.raises(UsageError, match="aa00"):
        store.get("aa")
    for wrong in ("", "c", "%", "_", "bb003333x"):
        with pytest.raises(NotFoundError):
            store.get(wrong)


def test_search_ignores_case_and_accents() -> None:
    store = Store()
    fill(store, "L'élève a mangé une GALETTE.", "rien")
    fill(store, "une galette secrète", hidden=True)
    for words in ("eleve", "ÉLÈVE", "gal ele", "l'eleve", "mange", 'galette"mange', "éle* galette -"):
        assert [hit.entry.content for hit in store.search(words, hidden=False)] == ["L'élève a mangé une GALETTE."]
    assert len(store.search("galette")) == 2
    assert [store.search(words) for words in ("", '"', "absent", "galette absent", "*", "NEAR(")] == [[]] * 6
    assert "galette" in store.search("secrete")[0].excerpt


def test_a_grown_message_is_found_by_its_new_words_only() -> None:
    store = Store()
    conversation = store.create(Conversation())
    for text in ("premier", "second mot"):
        store.save(conversation, [Entry("m1", conversation.id, None, "assistant", text, "partial")])
    assert store.search("premier") == [] and len(store.search("second")) == 1
    assert len(store.messages(conversation.id)) == 1


def test_only_the_owner_may_read() -> None:
    store = Store()
    fill(store, "a")
    assert store.path == paths.data() / "chat.db" and mode(store.path.parent) == 0o700
    for name in os.listdir(store.path.parent):
        assert mode(store.path.parent / name) == 0o600
    store.close()
    store.path.chmod(0o644)
    assert fill(Store(store.path), "b") and mode(store.path) == 0o600


def test_a_database_from_a_newer_version_is_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "chat.db"
    with sqlite3.connect(path) as future:
        future.execute("CREATE TABLE future (x)")
        future.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    future.close()
    before = path.read_bytes()
    with pytest.raises(FormatError, match="newer") as error:
        Store(path)
    assert error.value.exit_code == 6 and str(path) in error.value.message
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["chat.db"]


def test_a_damaged_file_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "chat.db"
    path.write_bytes(b"not a database " * 1000)
    with pytest.raises(FormatError, match="damaged"):
        Store(path)
    folder = tmp_path / "folder"
    folder.mkdir()
    with pytest.raises(VigtuiError, match="folder"):
        Store(folder)
    with pytest.raises(VigtuiError, match=r"chat\.db"):
        Store(path / "chat.db")


def test_a_full_disk_and_a_read_only_one_lose_nothing() -> None:
    store = Store()
    conversation = fill(store, "avant")
    pages = store._sqlite().execute("PRAGMA page_count").fetchone()[0]
    store._sqlite().execute(f"PRAGMA max_page_count = {pages + 1}")
    entry = Entry("big", conversation.id, None, "user", "x " * 100_000)
    with pytest.raises(CapacityError, match="full"):
        store.save(conversation, [entry])
    store._sqlite().execute("PRAGMA max_page_count = 1000000")
    store._sqlite().execute("PRAGMA query_only = ON")
    with pytest.raises(VigtuiError, match="no-save"):
        store.save(conversation, [entry])
    store._sqlite().execute("PRAGMA query_only = OFF")
    assert [one.content for one in store.messages(conversation.id)] == ["avant"]
    store.save(conversation, [entry])
    assert len(store.messages(conversation.id)) == 2


def test_threads_have_connections_of_their_own() -> None:
    store = Store()
    conversation = fill(store, "a")
    failures: list[Exception] = []

    def write(name: str) -> None:
        try:
            for i in range(20):
                store.save(conversation, [Entry(f"{name}{i}", conversation.id, None, "user", name)])
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=write, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == [] and len(store.messages(conversation.id)) == 81
    store.close()
    assert len(store.messages(conversation.id)) == 81


WRITER = """
import sys
from vigtui.chat.record import Conversation, Entry
from vigtui.chat.store import Store
conversation = Conversation(id=sys.argv[1])
store = Store()
for i in range(50):
    store.save(conversation, [Entry(f"{sys.argv[1]}-{i}", conversation.id, None, "user", "mot")])
"""


def test_two_processes_write_at_once() -> None:
    names = ["aaaaaaaa", "bbbbbbbb", "cccccccc"]
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, name]) for name in names]
    assert [writer.wait(60) for writer in writers] == [0, 0, 0]
    store = Store()
    assert [len(store.messages(name)) for name in names] == [50, 50, 50]
    assert len(store.search("mot", limit=1000)) == 150


def test_ten_thousand_messages() -> None:
    store = Store()
    conversation = fill(store, *(f"message {i}" for i in range(10_000)))
    entries = Store().messages(conversation.id)
    assert len(entries) == 10_000 and entries[-1].content == "message 9999"
    assert len(store.search("9999")) == 1
