"""What a client's call may raise, beside ``InvalidInput``."""

import httpx2

from pyoco_server.errors import PyocoError

_EXIT_CODES = {401: 4, 403: 4, 404: 5, 409: 6, 429: 4, 503: 7}
_KEY_HINT = "Pass a valid key: api_key=…, PYOCO_API_KEY, or --api-key-file."
_HINTS = {401: _KEY_HINT, 403: _KEY_HINT}


class ApiError(PyocoError, httpx2.HTTPStatusError):
    """The server refused, or its answer makes no sense.

    It is an ``HTTPStatusError`` too, so that ``error.response.status_code`` works as in programs written for httpx.

    Args:
        response: The answer.
        detail: The server's reason.
        code: Its stable id, such as ``run_not_found``.
        hint: What to do.
    """

    def __init__(self, response: httpx2.Response, detail: str, *, code: str = "", hint: str = "") -> None:
        # Not super(): each of the two bases would pass the other one arguments that it does not take.
        httpx2.HTTPStatusError.__init__(self, detail, request=response.request, response=response)
        self.status = self.http_status = response.status_code
        self.message = self.detail = detail
        self.code = code
        self.hint = hint or _HINTS.get(self.status, "")
        self.exit_code = _EXIT_CODES.get(self.status, 1)


class CannotConnect(PyocoError):
    """The server cannot be reached, or the connection broke."""

    code = "cannot_connect"
    exit_code = 7

    def __init__(self, url: str, reason: Exception) -> None:
        self.reason = str(reason) or type(reason).__name__
        super().__init__(
            f"cannot reach the server at {url}: {self.reason}",
            hint="Is it running? Start it with: pyoco-server up",
        )
