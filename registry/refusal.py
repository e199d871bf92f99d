"""What the hub refuses and what breaks on the way, told apart in sentences."""

from typing import Any

from ..core.errors import FormatError, NetworkError, NotFoundError, VigtuiError
from ..core.i18n import _
from ..core.text import line
from . import catalogue

_PASSING = (408, 425, 429, 500, 502, 503, 504)


class Interrupted(NetworkError):
    """It may go better in a moment: `after` seconds when the other side said so."""

    def __init__(self, message: str, hint: str = "", after: float | None = None) -> None:
        super().__init__(message, hint)
        self.after = after


def refused(error: Exception, name: str, revision: str | None, file: str, endpoint: str) -> VigtuiError:
    """Give the error to raise for what the client raised while it asked for `file` of `name` at `revision`."""
    answer: Any = getattr(error, "response", None)
    if answer is None:
        return _unanswered(error, endpoint if "://" not in name else name)
    code = answer.headers.get("X-Error-Code", "")
    if code == "GatedRepo":
        return _gated(answer, name, endpoint)
    if code == "RevisionNotFound":
        return NotFoundError(
            _("{name} has no revision {revision}.").format(name=name, revision=revision),
            _("See its branches at {url}.").format(url=f"{endpoint}/{name}/tree/main"),
        )
    if code == "EntryNotFound" or (file and answer.status_code == 404):
        return NotFoundError(
            _("{name} has no file {file}.").format(name=name, file=file),
            _("See its files at {url}.").format(url=f"{endpoint}/{name}/tree/{revision or 'main'}"),
        )
    if answer.status_code == 401 and "nvalid credentials" in _said(answer):
        return NetworkError(_("The hub does not know your token."), _login(endpoint))
    if code == "RepoNotFound" or (answer.status_code == 401 and "://" not in name):
        return _unknown(name)
    return _status(answer, name)


def _gated(answer: Any, name: str, endpoint: str) -> NetworkError:
    """Three refusals that need three different steps, and one that needs patience."""
    page, said = f"{endpoint}/{name}", _said(answer)
    if answer.status_code == 401 or "Authorization" not in answer.request.headers:
        return NetworkError(
            _("{name} is only for people who are logged in and accepted its licence.").format(name=name),
            _("Accept it at {url}, then give your token: {login}").format(url=page, login=_login(endpoint)),
        )
    if "rejected" in said:
        return NetworkError(
            _("The authors of {name} refused your request.").format(name=name),
            _("Choose another model, or write to them at {url}.").format(url=page),
        )
    if "awaiting" in said:
        return NetworkError(
            _("Your request for {name} waits for its authors' answer.").format(name=name),
            _("Pull again when they have accepted it: {url}.").format(url=page),
        )
    return NetworkError(
        _("Your account has not accepted the licence of {name}.").format(name=name),
        _("Accept it at {url}, then pull again.").format(url=page),
    )


def _unknown(name: str) -> NotFoundError:
    near = [one for one in catalogue.near(name) if one.casefold() != name.casefold()]
    hint = _("Did you mean {names}?").format(names=", ".join(near)) if near else _("Check its spelling on the hub.")
    private = _("If it is private, log in with `hf auth login` first.")
    return NotFoundError(_("There is no repository {name} on the hub.").format(name=name), f"{hint} {private}")


def _status(answer: Any, name: str) -> VigtuiError:
    status, after = answer.status_code, answer.headers.get("Retry-After", "")
    sentence = _("{name}: the server answered {status}.").format(name=name, status=status)
    if status in _PASSING:
        return Interrupted(sentence, _("Try again later."), float(after) if after.isdigit() else None)
    if status in (404, 410):
        return NotFoundError(_("There is no file at {url}.").format(url=name), _("Check the address."))
    if status == 416:
        return FormatError(_("{name}: the file is shorter than before.").format(name=name), _("Pull it again."))
    said = line(_said(answer))[:200]
    return NetworkError(f"{sentence} {said}".strip(), _("Check that your token may read it, or try again later."))


def _unanswered(error: Exception, place: str) -> NetworkError:
    kind, reason = type(error).__name__, line(str(error))[:200]
    if kind in ("UnsupportedProtocol", "InvalidURL", "LocalProtocolError", "ProxyError", "TooManyRedirects"):
        return NetworkError(
            _("{place} cannot be asked: {reason}.").format(place=place, reason=reason or kind),
            _("Check HF_ENDPOINT and the proxy settings."),
        )
    return Interrupted(
        _("{place} cannot be reached: {reason}.").format(place=_host(place), reason=reason or kind),
        _("Check the network; what was fetched so far is kept."),
    )


def _host(place: str) -> str:
    return place.split("/")[2] if "://" in place else place


def _said(answer: Any) -> str:
    return str(answer.headers.get("X-Error-Message", ""))


def _login(endpoint: str) -> str:
    return _("make one at {url} and run `hf auth login`, or set HF_TOKEN.").format(url=f"{endpoint}/settings/tokens")
