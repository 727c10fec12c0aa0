"""What a client's call may raise, beside ``InvalidInput``."""

from collections.abc import Sequence
from typing import Any

import httpx2
from typing_extensions import Self

from pyoco_server.client.httpx_kin import kin
from pyoco_server.client.needs import Need
from pyoco_server.client.proxies import Proxy
from pyoco_server.errors import PyocoError

_EXIT_CODES = {401: 4, 403: 4, 404: 5, 409: 6, 429: 4, 503: 7}
_KEY_HINT = "Pass a valid key: api_key=…, PYOCO_API_KEY, or --api-key-file."
_HINTS = {401: _KEY_HINT, 403: _KEY_HINT}
_PROXY_KEY = 407


class ApiError(PyocoError, httpx2.HTTPStatusError):
    """The server refused, or its answer makes no sense.

    It is an ``HTTPStatusError`` too: of httpx2, and where the program has imported httpx, of httpx as well. So
    ``except httpx.HTTPStatusError as error`` catches it, and ``error.response.status_code``, ``error.response.json()``
    and ``error.request`` work. The response and the request themselves are httpx2's.

    Args:
        response: The answer.
        detail: The server's reason.
        code: Its stable id, such as ``run_not_found``.
        hint: What to do.
    """

    def __new__(cls, *_: Any, **__: Any) -> Self:
        """Make one that is an error of httpx's, too."""
        return super().__new__(kin(cls, ("HTTPStatusError",)))

    def __init__(self, response: httpx2.Response, detail: str, *, code: str = "", hint: str = "") -> None:
        # Not super(): each base would pass the next one arguments that it does not take.
        Exception.__init__(self, detail)
        self.request, self.response = response.request, response
        self.status = self.http_status = response.status_code
        self.message = self.detail = detail
        self.code = code
        self.hint = hint or _HINTS.get(self.status, "")
        self.exit_code = _EXIT_CODES.get(self.status, 1)


class ForeignAnswer(ApiError):
    """An answer that is none of a pyoco-server's: of a proxy, or of another program on that port.

    Args:
        response: The answer.
        what: What it was, as a person calls it, such as ``HTTP 403 Forbidden``.
        proxy: Through which it came, if through any.
    """

    def __init__(self, response: httpx2.Response, what: str, proxy: Proxy | None) -> None:
        if proxy is None:
            message = "the server's answer is not JSON" if response.is_success else f"the server answered {what}"
            hint = "Is this the address of a pyoco-server? A proxy in front of it may have answered in its place."
        else:
            message = f"{proxy} answered in the server's place: {what}"
            hint = proxy_hint(proxy, response.status_code)
        code = "proxy_refused" if proxy else "not_json" if response.is_success else ""
        super().__init__(response, message, code=code, hint=hint)
        self.what, self.proxy = what, proxy
        if proxy is not None:
            self.exit_code = CannotConnect.exit_code


class ServerTooOld(ApiError):
    """The server is older than this client, and cannot do what was asked.

    Args:
        response: The answer that shows it.
        lacking: What it cannot do.
        version: Its version, where it tells it.
        done: What became of the call, in a sentence.
    """

    def __init__(self, response: httpx2.Response, lacking: Sequence[Need], version: str, done: str) -> None:
        cannot = " or ".join(dict.fromkeys(need.what for need in lacking))
        named = f" ({version})" if version else ""
        hint = f"{done} Upgrade the server, or do without.".strip()
        super().__init__(response, f"this server is older{named}: it cannot {cannot}", code="server_too_old", hint=hint)
        self.exit_code = 1
        self.lacking = tuple(lacking)


class NotJson(ForeignAnswer, ValueError):
    """A good answer that is not JSON. The existing client raised a ``ValueError``, so it is one too."""


class CannotConnect(PyocoError):
    """The server cannot be reached, or the connection broke.

    Where the program has imported httpx, it is the error of httpx's that tells the same, such as ``httpx.ConnectError``
    or ``httpx.ReadTimeout``; and so a ``httpx.TimeoutException``, ``httpx.TransportError``, ``httpx.HTTPError``.

    Args:
        url: The server's address.
        reason: What the HTTP library says.
        proxy: Through which it was tried, if through any.
    """

    code = "cannot_connect"
    exit_code = 7

    def __new__(cls, url: str, reason: Exception, *_: Any, **__: Any) -> Self:
        """Make one that is an error of httpx's, too."""
        return super().__new__(kin(cls, tuple(base.__name__ for base in type(reason).__mro__ if _is_httpx2(base))))

    def __init__(self, url: str, reason: Exception, proxy: Proxy | None = None) -> None:
        self.reason = str(reason) or type(reason).__name__
        self.proxy = proxy
        self.lasts = False
        """Whether trying again would be of no use."""
        through, hint = "", "Is it running? Start it with: pyoco-server up"
        if proxy is not None:
            status = _status(self.reason) if isinstance(reason, httpx2.ProxyError) else 0
            self.lasts = 400 <= status < 500
            through, hint = f" through {proxy}", proxy_hint(proxy, status)
        super().__init__(f"cannot reach the server at {url}{through}: {self.reason}", hint=hint)
        self._request = getattr(reason, "_request", None)  # what ``request`` of httpx's errors answers


def proxy_hint(proxy: Proxy, status: int) -> str:
    """Return what to do about a proxy that did not pass a request on.

    Args:
        proxy: The proxy.
        status: The HTTP status with which it refused; 0 where it did not answer.
    """
    if status == _PROXY_KEY:
        return f"It asks for a user and a password: {proxy.variable}=http://user:password@… {proxy.way_around}"
    return proxy.way_around


def _status(reason: str) -> int:
    first = reason.partition(" ")[0]
    return int(first) if first.isdigit() else 0


def _is_httpx2(base: type) -> bool:
    return base.__module__.partition(".")[0] == "httpx2"
