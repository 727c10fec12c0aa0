"""Keeps other sites' pages from using the browser of somebody who may use this server.

A browser lets any page send requests here, from the inside of a network too. Two rules, before keys are looked at:

- What changes something must come from our own page. Browsers say so in ``Sec-Fetch-Site``, older ones in ``Origin``,
  which is compared with ``Host``; other programs send neither.
- Without keys, and over the loopback address, ``Host`` must be an address or ``localhost``. A page whose name its owner
  points at 127.0.0.1 (DNS rebinding) is of the same origin for the browser, and could read and submit; but the browser
  tells the name. A proxy in front that passes the outer name on has to be named in the settings.
"""

import functools
import ipaddress
import time
from urllib.parse import urlsplit

import structlog
from starlette.types import Scope

from pyoco_server.errors import ForeignHost, ForeignOrigin
from pyoco_server.gateway.access.peer_address import source
from pyoco_server.model.addresses import is_loopback
from pyoco_server.process.reports import Reports
from pyoco_server.settings.environment import Settings

log = structlog.get_logger(__name__)

_SAFE = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
_OWN = frozenset({b"same-origin", b"none"})
_PORTS = {"http": 80, "https": 443}
_ANY = "*"
_LOOPBACK = functools.lru_cache(maxsize=64)(is_loopback)


class Browsers:
    """The two rules.

    Args:
        settings: Whether there are keys, and which hosts and origins are ours beside what can be told.
    """

    def __init__(self, settings: Settings) -> None:
        self._open = settings.http_auth_mode == "none"
        self._hosts = frozenset(settings.http_allowed_hosts)
        self._origins = frozenset(settings.http_allowed_origins)
        self._warned = False
        self._reports = Reports()

    def check(self, scope: Scope) -> None:
        """Look at a request. Of those that are refused the log tells, once a minute and address.

        Raises:
            ForeignHost: it was sent to a name that is not ours.
            ForeignOrigin: it would change something, and another site's page has sent it.
        """
        try:
            self._check(scope)
        except (ForeignHost, ForeignOrigin) as error:
            address = source(scope["client"][0] if scope.get("client") else None)
            if times := self._reports.due(address, time.monotonic()):
                log.warning("a browser's request was refused", address=address, method=scope["method"], code=error.code,
                            reason=error.message, attempts=times, hint=error.hint)  # fmt: skip
            raise

    def _check(self, scope: Scope) -> None:
        if self._hosts or (self._open and self._by_loopback(scope)):
            for value in _values(scope, b"host"):
                if not self._is_own(value):
                    raise ForeignHost(value)
        if scope.get("method") not in _SAFE:
            self._check_origin(scope)

    def _by_loopback(self, scope: Scope) -> bool:
        address = (scope.get("server") or ("",))[0]
        if _LOOPBACK(address):
            return True
        if address and not self._warned:
            # A web server of somebody's own, started with an address that we were not asked about.
            self._warned = True
            log.warning("anybody who reaches this address may run code on the workers", address=address,
                        hint="Turn keys on: PYOCO_HTTP_AUTH_MODE=api_key")  # fmt: skip
        return False

    def _is_own(self, host: str) -> bool:
        if _ANY in self._hosts:
            return True
        try:
            name = (urlsplit(f"//{host}").hostname or "").rstrip(".")
        except ValueError:
            return False
        return name == "localhost" or name.endswith(".localhost") or name in self._hosts or _is_address(name)

    def _check_origin(self, scope: Scope) -> None:
        origins = _values(scope, b"origin")
        if origins and all(origin.lower() in self._origins for origin in origins):
            return
        site = [value for name, value in scope["headers"] if name == b"sec-fetch-site"]
        if site:
            own = all(value in _OWN for value in site)
        else:
            hosts = _values(scope, b"host")
            own = all(_same(origin, host) for origin in origins for host in hosts or [""])
        if not own:
            raise ForeignOrigin(origins[0] if origins else None)


def _values(scope: Scope, header: bytes) -> list[str]:
    return [value.decode("latin-1") for name, value in scope["headers"] if name == header]


def _same(origin: str, host: str) -> bool:
    """Tell whether a page of this origin is ours; a proxy may have taken the TLS off."""
    try:
        page, here = urlsplit(origin), urlsplit(f"//{host}")
        port = _PORTS.get(page.scheme)
        return bool(page.hostname) and (page.hostname, page.port or port) == (here.hostname, here.port or port)
    except ValueError:
        return False


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
