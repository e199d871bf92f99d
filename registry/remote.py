"""Models on other servers: a record like any other, made of an address, the model's name there and a variable."""

from dataclasses import replace
from datetime import UTC, datetime

from ..backends.base import Remote
from ..core.errors import NotFoundError, UsageError
from ..core.i18n import _
from .describe import slug
from .record import Record
from .store import Registry

FORMAT = "messages"
"""The prompt format of a server: it is sent the messages and renders them itself."""


def add(url: str, model: str | None, name: str | None = None, key_env: str = "") -> Record:
    """Register the model `model` of the server at `url`, once it says that it has it; None is its only one.

    Of the key only the name of the variable is kept. Raises NotFoundError with the models that there are, UsageError
    when the name is taken, NetworkError or BackendError when the server does not answer as it should.
    """
    from ..backends import remote as backend  # the client takes a second to import

    url = url.rstrip("/")
    offers = backend.offers(Remote(url, model or "", key_env))
    if not offers:
        raise NotFoundError(_("{url} has no model.").format(url=url), _("Load one on the server first."))
    if model is None and len(offers) != 1:
        raise NotFoundError(
            _("{url} has {count} models.").format(url=url, count=len(offers)),
            _("Choose one with --model: {names}.").format(names=", ".join(one.id for one in offers[:20])),
        )
    offer = backend.find(offers, model, url) if model is not None else offers[0]
    chosen, colon, tag = (name or slug(offer.id)).partition(":")
    made_with = {"model": offer.id, **({"key_env": key_env} if key_env else {})}
    record = Record(
        chosen,
        "remote",
        tag if colon else "",
        source=url,
        format=FORMAT,
        context=offer.context,
        made_with=made_with,
        architecture="remote",
        added=datetime.now(UTC).isoformat(timespec="seconds"),
        origin="added",
    )
    return _publish(record)


def _publish(new: Record) -> Record:
    """Store the record, but not in the place of another model of the same server."""
    registry = Registry()
    old = next((one for one in registry.all() if one.ref == new.ref), None)
    if old and old.made_with.get("model") != new.made_with["model"]:
        raise UsageError(
            _("There is already a model {name}.").format(name=new.ref), _("Give another name with --name.")
        )
    return registry.publish(replace(new, added=old.added) if old else new)
