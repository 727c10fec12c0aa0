"""Wheels made by hand, good ones and bad ones."""

import base64
import hashlib
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path

Members = Mapping[str, str | bytes]


def wheel_name(package: str, version: str, tag: str = "py3-none-any") -> str:
    """Give the file name that a build would choose."""
    return f"{package.replace('-', '_')}-{version}-{tag}.whl"


def wheel_members(
    package: str,
    version: str,
    modules: Members | None = None,
    *,
    tag: str = "py3-none-any",
    entry_points: Mapping[str, str] | None = None,
    metadata: Iterable[str] = (),
    description: str = "",
) -> dict[str, str | bytes]:
    """Give the members of a small good wheel, all but RECORD.

    Args:
        package: The package's name.
        version: Its version.
        modules: Path and content of its files; a package of its name with ``VERSION`` when not given.
        tag: Interpreter, ABI and platform.
        entry_points: Of the group ``pyoco.tasks``: name and ``module:function``.
        metadata: Further lines of METADATA, such as ``Requires-Dist: x``.
        description: The text after them.
    """
    module = package.replace("-", "_")
    info = f"{module}-{version}.dist-info"
    lines = [f"Name: {package}", f"Version: {version}", *metadata]
    members = dict(modules if modules is not None else {f"{module}/__init__.py": f"VERSION = {version!r}\n"})
    members[f"{info}/METADATA"] = "Metadata-Version: 2.1\n" + "\n".join(lines) + "\n\n" + description
    members[f"{info}/WHEEL"] = f"Wheel-Version: 1.0\nGenerator: by hand\nRoot-Is-Purelib: true\nTag: {tag}\n"
    if entry_points:
        points = "".join(f"{name} = {target}\n" for name, target in entry_points.items())
        members[f"{info}/entry_points.txt"] = f"[pyoco.tasks]\n{points}"
    return members


def write_wheel(path: Path, members: Members, *, record: bool = True) -> Path:
    """Write a zip file of the members, and of a RECORD of them."""
    members = dict(members)
    info = next((name.split("/")[0] for name in members if ".dist-info/" in name), None)
    if record and info and f"{info}/RECORD" not in members:
        lines = [f"{name},sha256={_digest(content)},{len(_bytes(content))}\n" for name, content in members.items()]
        members[f"{info}/RECORD"] = "".join(lines) + f"{info}/RECORD,,\n"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def make_wheel(
    folder: Path,
    package: str,
    version: str,
    modules: Members | None = None,
    *,
    tag: str = "py3-none-any",
    entry_points: Mapping[str, str] | None = None,
    metadata: Iterable[str] = (),
    description: str = "",
) -> Path:
    """Write a small good wheel into a folder; the arguments are those of ``wheel_members``."""
    members = wheel_members(
        package, version, modules, tag=tag, entry_points=entry_points, metadata=metadata, description=description
    )
    return write_wheel(folder / wheel_name(package, version, tag), members)


def _bytes(content: str | bytes) -> bytes:
    return content.encode() if isinstance(content, str) else content


def _digest(content: str | bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(_bytes(content)).digest()).rstrip(b"=").decode()
