"""Takes an upload off the wire: the file goes to disk a piece at a time, and is gone when the request is.

FastAPI's own forms are spooled in the machine's temporary directory, which may be memory, and know no limit for a file.
"""

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

import anyio
from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header
from starlette.requests import ClientDisconnect, Request

from pyoco_server.errors import InvalidInput, StoreUnavailable, TooLarge
from pyoco_server.gateway.wheels.upload_room import Share, UploadRoom
from pyoco_server.model.wheels.file_name import WheelName, parse_wheel_name
from pyoco_server.wheelfile.inspection import Finding, NotInspected, Question, inspect

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

FOLDER = "uploads"
SILENCE_SEC = 60.0
"""Seconds without a byte after which an upload is given up."""
INSPECTION_SEC = 120.0
"""Seconds that the look into a wheel may take."""
_WRITE = 1 << 18
"""So many bytes wait in memory; before that nothing is taken of the disk."""
_MOST_PARTS = 16
_LONGEST_FIELD = 64 * 1024
_HINT = "Send a multipart form, the file in the field wheel: curl -F wheel=@FILE.whl -F tags=cpu,gpu …"


@dataclass(frozen=True)
class Upload:
    """What a form held."""

    name: WheelName
    file: BinaryIO
    size: int
    fields: dict[str, str]


@contextlib.asynccontextmanager
async def receive(request: Request, state_dir: Path, max_bytes: int, room: UploadRoom) -> AsyncIterator[Upload]:
    """Read a form with a wheel in it. The file has no name on disk: whatever ends the request, it is gone.

    Args:
        request: The request.
        state_dir: Where this machine's own files live.
        max_bytes: Largest file that is taken.
        room: Of the disk. What has come is taken from it, so that a client that sends nothing keeps nobody out.

    Raises:
        InvalidInput: it is no such form, the file's name is no wheel's, or it broke off.
        TooLarge: the file is.
        StoreUnavailable: there is no room for it, or the disk refuses it.
    """
    folder = state_dir / FOLDER
    async with room.share() as share:
        with contextlib.ExitStack() as stack:
            form = _Form(lambda: stack.enter_context(_open(folder)), max_bytes)
            try:
                parser = MultipartParser(_boundary(request), form.callbacks())
                async for chunk in _chunks(request):
                    parser.write(chunk)
                    if len(form.waiting) >= _WRITE:
                        await _keep(form, share)
                parser.finalize()
            except FormParserError as error:
                raise InvalidInput(f"the request's body is no form: {error}", hint=_HINT) from None
            if form.name is None or not form.complete:
                what = "has no file in the field wheel" if form.name is None else "breaks off"
                raise InvalidInput(f"the form {what}", hint=_HINT)
            await _keep(form, share)
            form.file.seek(0)
            yield Upload(form.name, form.file, form.size, form.fields)


async def _keep(form: "_Form", share: Share) -> None:
    await share.take(len(form.waiting))
    await asyncio.to_thread(form.flush)


def _open(folder: Path) -> AbstractContextManager[BinaryIO]:
    folder.mkdir(parents=True, exist_ok=True)
    return cast(AbstractContextManager[BinaryIO], tempfile.TemporaryFile(dir=folder))


async def inspected(upload: Upload, max_bytes: int) -> Finding:
    """Look into a wheel, in a process of its own; afterwards its file stands at its beginning.

    Args:
        upload: The wheel.
        max_bytes: Largest wheel that is taken.

    Raises:
        InvalidInput: it cannot be used; names the member.
        StoreUnavailable: this machine cannot look into it.
    """
    question = Question(upload.name.file_name, upload.file.fileno())
    try:
        [found] = await inspect([question], max_bytes=max_bytes, timeout=INSPECTION_SEC)
    except NotInspected as error:
        raise StoreUnavailable(str(error), hint="The server's machine may be short of memory or processes.") from error
    if found.reason is not None:
        raise InvalidInput(found.reason, hint=found.hint)
    upload.file.seek(0)
    return found


class _Form:
    """Collects the parts of a form: one file, and a few short fields.

    Args:
        make_file: Opens the file, as soon as there is something to write.
        max_bytes: Largest file that is taken.
    """

    def __init__(self, make_file: Callable[[], BinaryIO], max_bytes: int) -> None:
        self.name: WheelName | None = None
        self.size = 0
        self.fields: dict[str, str] = {}
        self.waiting = bytearray()
        self.complete = False
        self._make_file = make_file
        self._max_bytes = max_bytes
        self._parts = 0
        self._header = bytearray()
        self._value = bytearray()
        self._disposition = b""
        self._field: str | None = None
        self._text = bytearray()

    @cached_property
    def file(self) -> BinaryIO:
        """Where the file is kept; without a name."""
        return self._make_file()

    def callbacks(self) -> "MultipartCallbacks":
        """Give what the parser calls."""
        return {
            "on_part_begin": self._begin,
            "on_header_field": lambda data, start, end: self._header.extend(data[start:end]),
            "on_header_value": lambda data, start, end: self._value.extend(data[start:end]),
            "on_header_end": self._header_ends,
            "on_headers_finished": self._headers_end,
            "on_part_data": self._data,
            "on_part_end": self._end,
            "on_end": self._all,
        }

    def flush(self) -> None:
        """Write what waits to disk."""
        try:
            self.file.write(self.waiting)
        except OSError as error:
            raise StoreUnavailable(
                f"the upload cannot be kept on the server's disk: {error.strerror}",
                hint="PYOCO_STATE_DIR on the server names the directory.",
            ) from error
        self.waiting.clear()

    def _begin(self) -> None:
        self._parts += 1
        if self._parts > _MOST_PARTS:
            raise InvalidInput(f"the form has more than {_MOST_PARTS} parts", hint=_HINT)
        self._disposition = b""
        self._text.clear()

    def _header_ends(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition = bytes(self._value)
        self._header.clear()
        self._value.clear()

    def _headers_end(self) -> None:
        _, options = parse_options_header(self._disposition)
        self._field = options.get(b"name", b"").decode("utf-8", "replace")
        if self._field != "wheel":
            return
        if b"filename" not in options:
            raise InvalidInput("the field wheel is no file", hint=_HINT)
        if self.name is not None:
            raise InvalidInput("the form has more than one wheel", hint="Upload one at a time.")
        self.name = parse_wheel_name(options[b"filename"].decode("utf-8", "replace"))
        self._field = None

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._field is not None:
            self._text += data[start:end]
            if len(self._text) > _LONGEST_FIELD:
                raise TooLarge(f"the field {self._field[:80]!r} has more than {_LONGEST_FIELD} bytes")
            return
        self.size += end - start
        if self.size > self._max_bytes:
            raise too_large(self._max_bytes)
        self.waiting += data[start:end]

    def _end(self) -> None:
        if self._field is not None:
            self.fields[self._field] = self._text.decode("utf-8", "replace")

    def _all(self) -> None:
        self.complete = True


def too_large(max_bytes: int) -> TooLarge:
    """Make the error of a wheel that is too large."""
    return TooLarge(
        f"the wheel is larger than {max_bytes} bytes",
        hint="Leave out what does not belong into it; PYOCO_WHEEL_MAX_BYTES on the server sets the limit.",
    )


def _boundary(request: Request) -> bytes:
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    if kind != b"multipart/form-data" or not options.get(b"boundary"):
        raise InvalidInput("the request is no multipart form", hint=_HINT)
    return options[b"boundary"]


async def _chunks(request: Request) -> AsyncIterator[bytes]:
    stream = request.stream().__aiter__()
    while True:
        try:
            with anyio.fail_after(SILENCE_SEC):
                chunk = await stream.__anext__()
        except StopAsyncIteration:
            return
        except ClientDisconnect:
            raise InvalidInput("the upload broke off") from None
        except TimeoutError:
            raise InvalidInput(f"no byte of the upload came for {SILENCE_SEC:g} s") from None
        yield chunk
