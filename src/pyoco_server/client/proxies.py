"""Which proxy stands between us and a server, by the environment variables that other programs read too.

``HTTP_PROXY`` is for ``http://`` addresses, ``HTTPS_PROXY`` for ``https://`` ones, ``ALL_PROXY`` for both; ``NO_PROXY``
names what is reached without one. This machine itself never is reached through one: nothing but a mistake could want
that. The HTTP library reads these variables as well, but cannot say afterwards which one it obeyed.
"""

import importlib.util
import ipaddress
import os
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

import httpx2

from pyoco_server.errors import InvalidInput

_SCHEMES = ("http", "https", "socks5", "socks5h")
_PORTS = {"http": 80, "https": 443}
_HAS_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True)
class Proxy:
    """A proxy, and where it was named.

    Attributes:
        url: Its address, with user and password if it has any.
        shown: Its address without them.
        variable: The environment variable.
        server: The host that is reached through it.
    """

    url: str
    shown: str
    variable: str
    server: str

    def __str__(self) -> str:
        return f"the proxy {self.shown} (from {self.variable})"

    def __repr__(self) -> str:  # the password must not get into a traceback with values
        return f"Proxy({self.shown!r}, {self.variable!r})"

    @property
    def way_around(self) -> str:
        """How to do without it."""
        return f"To go without the proxy, set NO_PROXY={self.server}, or unset {self.variable}."


def proxy_for(url: str, environ: Mapping[str, str] | None = None) -> Proxy | None:
    """Return the proxy through which a server is reached; ``None`` for none.

    Args:
        url: The server's address, http or https.
        environ: The environment; the process's own when not given.

    Raises:
        InvalidInput: the variable names something that cannot be used; the message says which.
    """
    environ = os.environ if environ is None else environ
    parts = urlsplit(url)
    host = (parts.hostname or "").rstrip(".")
    found = _named(parts.scheme, environ)
    if found is None or is_this_machine(host):
        return None
    excepted = _either("no_proxy", environ)
    if excepted and _excepts(excepted[1], parts.scheme, host, parts.port or _PORTS[parts.scheme]):
        return None
    return _checked(*found, host)


def is_this_machine(host: str) -> bool:
    """Whether a host's name or address can mean nothing but the machine that uses it."""
    host = host.rstrip(".").lower()
    if host == "localhost" or host.endswith(".localhost"):
        return True
    address = _address(host)
    return address is not None and (address.is_loopback or address.is_unspecified)


def _either(name: str, environ: Mapping[str, str]) -> tuple[str, str] | None:
    """Find a variable in lower case or in capitals; the one in lower case counts, as with curl."""
    for spelled in (name, name.upper()):
        if spelled == "HTTP_PROXY" and "REQUEST_METHOD" in environ:
            continue  # under CGI it is what a caller sent as the header Proxy
        if spelled in environ:
            value = environ[spelled].strip()
            return (spelled, value) if value else None
    return None


def _named(scheme: str, environ: Mapping[str, str]) -> tuple[str, str] | None:
    return _either(f"{scheme}_proxy", environ) or _either("all_proxy", environ)


def _checked(variable: str, value: str, server: str) -> Proxy:
    """Return the proxy that a variable names.

    Raises:
        InvalidInput: it cannot be used.
    """
    url = value if _HAS_SCHEME.match(value) else f"http://{value}"
    # Whatever stands before the last @ may be a password, also where the rest cannot be read.
    scheme, _, rest = url.partition("://")
    proxy = Proxy(url, f"{scheme}://{rest.rpartition('@')[2]}", variable, server)
    try:
        parts = urlsplit(url)
        proxy = Proxy(url, _shown(parts), variable, server)
        broken = not parts.hostname or parts.port == 0 or " " in url or not httpx2.URL(url).host
    except (ValueError, httpx2.InvalidURL):
        broken = True
    if broken:
        raise InvalidInput(f"{proxy} has no usable address", hint=f"Write it as http://host:port. {proxy.way_around}")
    if parts.scheme not in _SCHEMES:
        raise InvalidInput(
            f"{proxy} is of a kind that is not known: {parts.scheme}",
            hint=f"Known are {', '.join(_SCHEMES)}. {proxy.way_around}",
        )
    if parts.scheme.startswith("socks") and importlib.util.find_spec("socksio") is None:
        raise InvalidInput(
            f"{proxy} cannot be used: support for SOCKS is not installed",
            hint=f"Install it with: pip install 'httpx2[socks]'. {proxy.way_around}",
        )
    return proxy


def _shown(parts: SplitResult) -> str:
    host = parts.hostname or ""
    host = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{host}" + (f":{parts.port}" if parts.port is not None else "")


def _excepts(entries: str, scheme: str, host: str, port: int) -> bool:
    """Whether one of the entries of ``NO_PROXY`` is about a server."""
    return any(_is_about(entry, scheme, host.lower(), port) for entry in re.split(r"[,\s]+", entries) if entry)


def _is_about(entry: str, scheme: str, host: str, port: int) -> bool:
    if entry == "*":
        return True
    if _HAS_SCHEME.match(entry):
        wanted, _, entry = entry.partition("://")
        if wanted.lower() not in (scheme, "all"):
            return False
    name, its_port = _split_port(entry.lower().removeprefix("*"))
    if its_port not in (None, str(port)):
        return False
    address, network = _address(host), _network(name)
    if address is not None or network is not None:
        return address is not None and network is not None and address in network
    domain = name.strip(".")
    return bool(domain) and (host == domain or host.endswith(f".{domain}"))


def _split_port(entry: str) -> tuple[str, str | None]:
    """Split ``host:port``, ``[address]:port``, ``address``; more colons without brackets are all of the address."""
    if entry.startswith("["):
        name, _, rest = entry[1:].partition("]")
        prefix, _, port = rest.partition(":")
        return name + prefix, port or None
    if entry.count(":") == 1:
        name, _, port = entry.partition(":")
        return name, port or None
    return entry, None


def _network(name: str) -> _Network | None:
    try:
        return ipaddress.ip_network(name, strict=False)
    except ValueError:
        return None


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Read an address in any form that connecting takes, such as 127.1; ``None`` for a name."""
    try:
        found = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        try:
            return ipaddress.IPv4Address(socket.inet_aton(host)) if re.match(r"[0-9]", host) else None
        except (OSError, ValueError):
            return None
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return mapped or found
