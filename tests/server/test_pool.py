"""Engines that come and go while requests come in."""

import asyncio
import threading

import pytest
from vigtui.backends.base import Backend, LoadOptions
from vigtui.backends.echo import EchoBackend
from vigtui.core.progress import silent
from vigtui.registry import open as opening
from vigtui.registry.record import Record
from vigtui.server.metric import Metrics
from vigtui.server.pool import Pool, Served


def test_an_engine_that_is_asked_for_while_another_one_ends_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    def opened(record: Record, options: LoadOptions, _backend: str, force: bool) -> Backend:
        engine = EchoBackend()
        engine.load(opening.files(record), options, silent)
        return engine

    monkeypatch.setattr(opening, "open", opened)
    models = [Served(Record(name, "gguf"), "echo") for name in "abc"]
    ending, release, ended = threading.Event(), threading.Event(), []

    async def run() -> None:
        pool = Pool(models, LoadOptions(), Metrics(), keep_alive=0.0)
        engines = []
        for model in models:
            async with pool.use(model) as engine:
                engines.append(engine)
        engines[0].close = lambda: ending.set() or release.wait(20)
        engines[1].close = lambda: ended.append("b")
        engines[2].close = lambda: ended.append("c")
        watch = asyncio.create_task(pool.watch())
        await asyncio.to_thread(ending.wait, 20)
        async with pool.use(models[1]) as engine:
            release.set()
            while "c" not in ended:
                await asyncio.sleep(0)
            assert engine is engines[1] and ended == ["c"]
        watch.cancel()

    asyncio.run(asyncio.wait_for(run(), 30))
