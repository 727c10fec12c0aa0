"""Serves under a path that a proxy has put before the server's own, whether or not the proxy takes it off again.

The prefix is a setting, or what a proxy that the settings name tells in ``X-Forwarded-Prefix``. With it the path of a
request is made whole, as ASGI has it: ``path`` begins with ``root_path``. Everything behind this relies on that.

Where a proxy takes off a prefix that nobody told us, all works too but what has to name it: the page's addresses are
relative. And there are no redirects that could lead to another place: a path with a slash at its end is the same path.
"""

import ipaddress

from starlette.applications import Starlette
from starlette.types import ASGIApp, Receive, Scope, Send

from pyoco_server.errors import InvalidInput, InvalidSetting
from pyoco_server.gateway.access.guard import doors
from pyoco_server.gateway.problems import problem
from pyoco_server.model.prefixes import check_prefix
from pyoco_server.settings.environment import Settings

_HEADER = b"x-forwarded-prefix"
_SHOWN = 100


class Prefix:
    """ASGI middleware.

    Args:
        app: What comes after it.
        settings: The prefix, and the proxies that may tell another.
        own: The first parts of the server's own paths. A prefix that begins so could not be told from them.
    """

    def __init__(self, app: ASGIApp, settings: Settings, own: frozenset[str]) -> None:
        self._app = app
        self._prefix = settings.root_path
        self._proxies = [ipaddress.ip_network(network) for network in settings.trusted_proxies]
        self._own = own

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        try:
            # A web server of the user's own may know it already.
            prefix = scope.get("root_path", "").rstrip("/") or self._told(scope) or self._prefix
        except InvalidInput as error:
            await problem(error.http_status, error.message, error.code, error.hint)(scope, receive, send)
            return
        scope["root_path"], scope["path"] = prefix, _whole(prefix, scope["path"])
        await self._app(scope, receive, send)

    def _told(self, scope: Scope) -> str:
        """Return the prefix that a trusted proxy tells; empty if there is none.

        Raises:
            InvalidInput: it is none that could be used.
        """
        values = [value.decode("latin-1") for name, value in scope["headers"] if name == _HEADER]
        if not values or not self._proxies or not self._trusts(scope):
            return ""
        try:
            if len(values) > 1:
                raise ValueError("it was sent more than once")
            prefix = check_prefix(values[0])
            if _first(prefix) in self._own:
                raise ValueError("the server has paths of its own that begin so")
        except ValueError as error:
            raise InvalidInput(
                f"X-Forwarded-Prefix: {', '.join(values)[:_SHOWN]!r} cannot be used: {error}",
                hint="The proxy must set it, and not pass on what its clients send.",
            ) from None
        return prefix

    def _trusts(self, scope: Scope) -> bool:
        try:
            peer = ipaddress.ip_address((scope.get("client") or ("",))[0])
        except ValueError:  # a Unix socket, say
            return False
        peer = getattr(peer, "ipv4_mapped", None) or peer
        return any(peer in network for network in self._proxies)


def own_parts(app: Starlette, settings: Settings) -> frozenset[str]:
    """Return the first parts of an app's paths, such as ``runs``.

    Raises:
        InvalidSetting: the prefix of the settings begins with one of them.
    """
    own = frozenset(_first(door.route.path or "") for door in doors(app)) - {""}
    if _first(settings.root_path) in own:
        raise InvalidSetting(
            f"PYOCO_ROOT_PATH={settings.root_path!r} cannot be used: the server has paths of its own that begin so",
            hint="Serve it under another path, such as /pyoco.",
        )
    return own


def _first(path: str) -> str:
    return path.removeprefix("/").partition("/")[0]


def _whole(prefix: str, path: str) -> str:
    """Return a path with its prefix, which a proxy may have taken off, and without slashes at its end."""
    bare = path.rstrip("/")
    whole = bare if f"{bare}/".startswith(f"{prefix}/") else prefix + bare
    return f"{prefix}/" if whole == prefix else whole
