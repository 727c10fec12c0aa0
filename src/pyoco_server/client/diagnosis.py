"""What is wrong, as seen from here: the server's own word, and whether and how it can be reached."""

import socket
import time
from typing import Any
from urllib.parse import urlsplit

from pyoco_server import __version__
from pyoco_server.client.errors import ApiError, CannotConnect, ForeignAnswer
from pyoco_server.client.http import PyocoHttpClient
from pyoco_server.client.proxies import Proxy, is_this_machine
from pyoco_server.model.findings.finding import Finding, FindingCode, Severity, apart, error, warning
from pyoco_server.model.findings.texts import described
from pyoco_server.model.text.languages import Language

_SELF = "pyoco-client"


class Diagnosis:
    """Asks the server, and adds what only its client can see.

    Args:
        client: To the server.
        url: Its address.
        has_key: Whether a key is sent.
        language: Of the texts.
    """

    def __init__(self, client: PyocoHttpClient, url: str, *, has_key: bool, language: Language) -> None:
        self._client = client
        self._url = url
        self._has_key = has_key
        self._language = language
        self.about: dict[str, Any] = {"client": __version__, "server": url, "version": None, "nats_server": None}
        """What is known beside the findings."""

    def findings(self) -> list[dict[str, Any]]:
        """Give all findings, the worst first, as the server gives its own."""
        try:
            found = self._asked()
        except CannotConnect as away:
            if away.proxy:
                found = [self._of(proxy_fails(self._url, away.proxy, away.reason))]
            else:
                found = [self._of(error(FindingCode.SERVER_UNREACHABLE, url=self._url, reason=away.reason))]
        except ApiError as refused:
            found = [self._of(self._refused(refused))]
        order = [severity.value for severity in Severity]
        return sorted(found, key=lambda one: order.index(one["severity"]))

    def _asked(self) -> list[dict[str, Any]]:
        """Ask the server.

        Raises:
            ApiError: it refuses, or is no server of ours.
            CannotConnect: it cannot be reached.
        """
        asked = time.time()
        told = self._client.get_doctor(lang=self._language)
        if not isinstance(told, dict) or not isinstance(told.get("findings"), list):
            return [self._of(error(FindingCode.SERVER_ODD, url=self._url, reason="/doctor answers something else"))]
        own = self._compared(told, asked, time.time())
        self.about |= {name: told.get(name) for name in ("version", "nats_server", "workers", "scope")}
        return [*told["findings"], *(self._of(finding) for finding in own)]

    def _compared(self, told: dict[str, Any], asked: float, answered: float) -> list[Finding]:
        doubt = (answered - asked) / 2
        findings = apart(f"{_SELF} ({socket.gethostname()})", asked + doubt - told["now"], doubt=doubt)
        if told["version"] != __version__:
            findings.append(
                warning(FindingCode.VERSION_DIFFERS, ours=told["version"], version=__version__, who=[_SELF])
            )
        if told["authentication"] == "none" and not is_this_machine(urlsplit(self._url).hostname or ""):
            findings.append(warning(FindingCode.NO_AUTHENTICATION, url=self._url))
        return findings

    def _refused(self, refused: ApiError) -> Finding:
        if isinstance(refused, ForeignAnswer) and (refused.proxy or refused.status < 500):
            return odd_answer(self._url, refused.proxy, refused.what)
        if refused.status == 401 and not self._has_key:
            return error(FindingCode.KEY_MISSING, url=self._url)
        if refused.status in (401, 403, 429):
            return error(FindingCode.KEY_INVALID, url=self._url, reason=refused.message)
        if refused.status == 404 and refused.code:
            return error(FindingCode.SERVER_OLD, url=self._url)
        if refused.status >= 500:
            trace_id = _field(refused, "trace_id")
            return error(FindingCode.SERVER_FAILS, url=self._url, reason=refused.message, trace_id=trace_id)
        return odd_answer(self._url, None, refused.message)

    def _of(self, finding: Finding) -> dict[str, Any]:
        return described(finding, self._language, time.time())


def odd_answer(url: str, proxy: Proxy | None, reason: str) -> Finding:
    """Return the finding that what answers is no pyoco-server, but a proxy if there is one."""
    return proxy_fails(url, proxy, reason) if proxy else error(FindingCode.SERVER_ODD, url=url, reason=reason)


def proxy_fails(url: str, proxy: Proxy, reason: str) -> Finding:
    """Return the finding that a proxy is in the way to a server."""
    named = {"proxy": proxy.shown, "variable": proxy.variable, "server": proxy.server}
    return error(FindingCode.PROXY_FAILS, url=url, reason=reason, **named)


def _field(refused: ApiError, name: str) -> Any:
    try:
        body = refused.response.json()
    except ValueError:
        return None
    return body.get(name) if isinstance(body, dict) else None
