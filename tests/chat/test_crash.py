"""kill -9 at any moment: what was acknowledged is there, and the database opens."""

import random
import subprocess
import sys
import time

from vigtui.chat.store import Store

WRITER = """
import sys
from vigtui.backends.base import Done, LoadOptions, Text
from vigtui.backends.echo import EchoBackend
from vigtui.chat.answer import Answer
from vigtui.chat.session import Session
from vigtui.chat.store import Store
import vigtui.chat.answer

vigtui.chat.answer.SAVE_EVERY = 0.0
engine = EchoBackend(["un deux trois quatre"] * 10000)
engine.load(None, LoadOptions(), lambda *stage: None)
session = Session.open(Store(), sys.argv[1]) if len(sys.argv) > 1 else Session.new(Store())
print("session", session.id, flush=True)
while True:
    print("said", session.say("un deux trois quatre").id, flush=True)
    for event in session.reply(engine):
        if isinstance(event, Done):
            print("done", session.path()[-1].id, flush=True)
"""


def test_every_acknowledged_message_survives_sigkill() -> None:
    acknowledged: dict[str, str] = {}
    session: list[str] = []
    moment = random.Random(0)
    for _round in range(20):
        with subprocess.Popen([sys.executable, "-c", WRITER, *session], stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            session = [child.stdout.readline().split()[1]]
            heard = [child.stdout.readline() for _line in range(moment.randrange(1, 25))]
            time.sleep(moment.uniform(0, 0.004))  # between two lines, in the middle of a write
            child.kill()
            heard += child.stdout.read().splitlines(keepends=True)
        acknowledged |= {
            id: kind for kind, id in (line.split() for line in heard if line.endswith("\n") and len(line) > 17)
        }
        stored = {entry.id: entry for entry in Store().messages(session[0])}
        for id, kind in acknowledged.items():
            assert stored[id].state == "complete"
            assert stored[id].role == ("user" if kind == "said" else "assistant")
            assert stored[id].content == "un deux trois quatre"
        for entry in stored.values():
            assert entry.parent is None or entry.parent in stored
            assert "un deux trois quatre".startswith(entry.content)
    integrity = Store()._rows("PRAGMA integrity_check") + Store()._rows("SELECT count(*) FROM words('un')")
    assert integrity[0] == ("ok",) and integrity[1][0] >= len(acknowledged) > 20
