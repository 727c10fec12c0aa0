"""Looks into a wheel: is it one, and would it stay where it belongs?

Nothing is unpacked to disk. Every member is read once, so that sizes and checksums are those that an installer will
see.
"""

import struct
import zipfile
import zlib
from dataclasses import dataclass
from typing import BinaryIO

from pyoco_server.model.wheels.file_name import WheelName
from pyoco_server.wheelfile import metadata
from pyoco_server.wheelfile.archive import check_members, check_sizes, open_wheel, read_blocks, refuse
from pyoco_server.wheelfile.layout import check_folders, info_folder, places_of
from pyoco_server.wheelfile.record import Record

_SELF = {"pyoco", "pyoco-server"}
_LONGEST_REQUIREMENT = 1000
"""Letters of Requires-Python, which travels in a header of the store."""


@dataclass(frozen=True)
class WheelContent:
    """What a good wheel holds."""

    requires_python: str | None
    places: dict[str, str]
    """The member by the place that it is installed to; ``""`` for a command that the installer writes."""


def check_wheel(file: BinaryIO, name: WheelName, max_bytes: int, *, read_all: bool = True) -> WheelContent:
    """Check a wheel; blocks for as long as its unpacking takes.

    Args:
        file: The wheel.
        name: What its file name says.
        max_bytes: Largest wheel that is taken; sets how much it may unpack to.
        read_all: Whether every member is read; otherwise only the metadata are.

    Raises:
        InvalidInput: it is no wheel, does not agree with its name, or would harm who installs it; names the member.
    """
    if name.package in _SELF:
        refuse(f"{name.package} belongs to pyoco-server itself", "Give the package another name.")
    try:
        with open_wheel(file) as archive:
            members, folders = check_members(archive)
            info = info_folder(members, name)
            metadata.check_bounds(members, info)
            check_sizes(archive, max_bytes)
            path = f"{info}/METADATA"
            fields = metadata.headers(metadata.read_info(archive, members, path), path)
            metadata.check_metadata(fields, name)
            path = f"{info}/WHEEL"
            metadata.check_tags(metadata.headers(metadata.read_info(archive, members, path), path), name)
            scripts = metadata.scripts_of(archive, members, f"{info}/entry_points.txt")
            check_folders(folders, name)
            places = places_of(members, info, name, scripts)
            record = Record(metadata.read_info(archive, members, f"{info}/RECORD"), f"{info}/RECORD")
            record.finish(members)
            for path, member in members.items() if read_all else ():
                record.check(path, read_blocks(archive, member))
    except (
        zipfile.BadZipFile, zlib.error, struct.error, EOFError, NotImplementedError, UnicodeError, OverflowError
    ) as error:  # fmt: skip
        refuse(f"the file is no good zip archive: {error}", "Build it anew, and upload the file unchanged.")
    requires = str(fields.get("Requires-Python") or "").strip()
    if len(requires) > _LONGEST_REQUIREMENT:
        refuse(f"its METADATA has a Requires-Python of {len(requires)} letters")
    return WheelContent(requires or None, places)
