"""What is known of a model beyond its record."""

from dataclasses import replace

from vigtui.registry.detail import detail
from vigtui.registry.record import File, Record
from vigtui.registry.store import Registry

from ..tiny import write_gguf


def test_a_model_is_used_for_what_was_made_of_it_alone(tmp_path) -> None:
    store, file = Registry(), File(write_gguf(tmp_path / "base.gguf"), 1)
    base = Record("base", "safetensors", files=(file,))
    store.publish(base)
    for name, tag, parents in (("base", "Q4_0", ("base",)), ("hat", "", ("other",)), ("coat", "", ("base",))):
        store.publish(replace(base, name=name, kind="gguf", tag=tag, parents=parents))
    assert detail(store.find("base:Q4_0")).children == ()
    assert set(detail(base).children) == {"base:Q4_0", "coat"}
