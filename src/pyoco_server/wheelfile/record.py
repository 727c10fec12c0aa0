"""A wheel's RECORD: the list of its files with their checksums."""

import base64
import csv
import hashlib
import io
from collections.abc import Collection, Iterable

from pyoco_server.errors import InvalidInput
from pyoco_server.wheelfile.archive import MOST_MEMBERS, refuse

_STRONG = ("sha256", "sha384", "sha512")
_MOST_ROWS = 2 * MOST_MEMBERS
_UNSIGNED = ("RECORD", "RECORD.jws", "RECORD.p7s")


class Record:
    """Checks members against a RECORD. A file that it does not list, or lists without a checksum, is left alone.

    Args:
        content: The RECORD.
        path: Its own path.

    Raises:
        InvalidInput: it cannot be read.
    """

    def __init__(self, content: bytes, path: str) -> None:
        self._listed: dict[str, str] = {}
        self._own = {path.removesuffix("RECORD") + name for name in _UNSIGNED}
        try:
            for number, row in enumerate(csv.reader(io.StringIO(content.decode(), newline=""))):
                if not row:
                    continue
                if number >= _MOST_ROWS:
                    refuse(f"its RECORD lists more than {_MOST_ROWS} files")
                self._listed[row[0]] = row[1] if len(row) > 1 else ""
        except (UnicodeError, csv.Error) as error:
            raise InvalidInput(f"the wheel is refused: its RECORD cannot be read: {error}") from None

    def check(self, path: str, blocks: Iterable[bytes]) -> None:
        """Compare a member with its checksum; reads all of it in any case.

        Raises:
            InvalidInput: they differ.
        """
        algorithm, _, wanted = self._listed.get(path, "").partition("=")
        if algorithm and algorithm not in _STRONG:
            raise InvalidInput(f"the wheel is refused: its RECORD has a checksum of {path!r} that is none: {algorithm}")
        # What is to be compared with nothing is read all the same, for its size and its sum in the archive.
        digest = hashlib.new(algorithm or "sha256")
        for block in blocks:
            digest.update(block)
        found = base64.urlsafe_b64encode(digest.digest()).decode().rstrip("=")
        if algorithm and path not in self._own and wanted.rstrip("=") != found:
            raise InvalidInput(
                f"the wheel is refused: the member {path!r} is not the file that its RECORD lists",
                hint="It was changed after the build; build it anew.",
            )

    def finish(self, members: Collection[str]) -> None:
        """Check that every listed file is there.

        Raises:
            InvalidInput: one is not.
        """
        missing = sorted(path for path in self._listed if path not in members and path not in self._own)
        if missing:
            raise InvalidInput(f"the wheel is refused: its RECORD lists {missing[0][:200]!r}, which is not there")
