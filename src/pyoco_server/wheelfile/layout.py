"""Where each file of a wheel is installed to, and which of these places are not for wheels."""

import unicodedata
from collections.abc import Iterable

from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from pyoco_server.model.wheels.file_name import WheelName
from pyoco_server.wheelfile.archive import Members, parents, refuse

_OWN_MODULES = {"pyoco", "pyoco_server"}
_STARTUP = {"sitecustomize", "usercustomize"}
_OWN_NAMES = (".lock", "pyoco-environment", ".pyoco")
"""How the names begin that uv and we write into an environment's directory."""


def folded(path: str) -> str:
    """Return what two names have in common that a file system or Python may take for the same."""
    if path.isascii():
        return path.lower()
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", path).casefold())


def info_folder(members: Members, name: WheelName) -> str:
    """Return the folder of the metadata.

    Raises:
        InvalidInput: there is not exactly one that agrees with the file name.
    """
    firsts = {path.split("/")[0] for path in members if "/" in path}
    infos = {first for first in firsts if folded(first).endswith(".dist-info")}
    if len(infos) != 1:
        refuse(
            f"it has {len(infos)} folders *.dist-info, not one" + (f": {', '.join(sorted(infos)[:5])}" if infos else "")
        )
    info = infos.pop()
    if not _agrees(info.removesuffix(".dist-info"), name):
        refuse(f"the folder {info!r} does not agree with the file name {name.file_name!r}")
    return info


def places_of(members: Iterable[str], info: str, name: WheelName, scripts: Iterable[str]) -> dict[str, str]:
    """Check where each member would be installed to.

    Args:
        members: Paths.
        info: The folder of the metadata.
        name: What the file name says.
        scripts: The commands that an installer makes of the entry points.

    Returns:
        The member by its place, relative to the folder of the modules. The place of a command has no member: ``""``.

    Raises:
        InvalidInput: a member would harm others, or take the place of another one.
    """
    landed: dict[str, str] = {}
    for path in members:
        place, inner = _place(path, name)
        other = landed.setdefault(place, path)
        if other != path:
            refuse(f"the members {other!r} and {path!r} would be installed to the same place")
        for first in {place.partition("/")[0], inner.partition("/")[0]}:
            _check_first(path, folded(first).rstrip(" ."))
        _check_module(path, place, info)
    for script in scripts:
        landed.setdefault(f"bin/{script}", "")
    for place, path in landed.items():
        for parent in parents(place):
            if parent in landed:
                refuse(f"the members {landed[parent]!r} and {path!r} would be a file and a folder of the same name")
    return landed


def check_folders(folders: Iterable[str], name: WheelName) -> None:
    """Check the names of folders, for a wheel may have empty ones.

    Raises:
        InvalidInput: one is not for wheels.
    """
    for folder in folders:
        first, _, rest = folder.partition("/")
        if folded(first).endswith(".data"):
            # The folder of the wheel's data itself, and those of the schemes, are no places.
            if _agrees(first.removesuffix(".data"), name) and "/" not in rest:
                continue
            place, inner = _place(folder, name)
        else:
            place, inner = folder, folder
        for part in {place.partition("/")[0], inner.partition("/")[0]}:
            _check_first(folder, folded(part).rstrip(" ."))


def _check_first(path: str, first: str) -> None:
    if first.startswith(_OWN_NAMES):
        refuse(
            f"the member {path!r} would take the place of a file that pyoco-server or its installer keeps beside a "
            "wheel's modules",
            "Give it another name, or put it into the package's folder.",
        )


def _check_module(path: str, place: str, info: str) -> None:
    first, deeper, _ = place.partition("/")
    shown = folded(first)
    module = shown.partition(".")[0]
    if module in _OWN_MODULES:
        refuse(f"the member {path!r} would overwrite {module}, which belongs to pyoco-server itself")
    if shown.endswith((".dist-info", ".egg-info")) and first != info:
        refuse(f"the member {path!r} would pass for another package's metadata")
    if not deeper and shown.endswith(".pth"):
        refuse(f"the member {path!r} would run at every start of Python", "Put the file into a package's folder.")
    if module in _STARTUP:
        refuse(f"the member {path!r} would run at every start of Python", "Give the module another name.")
    if shown == "__pycache__":
        compiled = folded(place.rpartition("/")[2]).partition(".")[0]
        if compiled in _OWN_MODULES | _STARTUP:
            refuse(f"the member {path!r} would pass for another package's module")


def _place(path: str, name: WheelName) -> tuple[str, str]:
    """Return where a member is installed to, relative to the folder of the modules, and to the folder of its kind."""
    first, _, rest = path.partition("/")
    if not folded(first).endswith(".data"):
        return path, path
    scheme, _, inner = rest.partition("/")
    if not _agrees(first.removesuffix(".data"), name) or not inner:
        refuse(f"the folder of the member {path!r} does not agree with the file name {name.file_name!r}")
    if scheme in ("purelib", "platlib", "data"):
        return inner, inner
    if scheme in ("scripts", "headers"):
        return f"{'bin' if scheme == 'scripts' else f'include/{name.package}'}/{inner}", inner
    return refuse(f"the member {path!r} is for a place that installers do not know")


def _agrees(folder: str, name: WheelName) -> bool:
    package, _, version = folder.partition("-")
    try:
        return canonicalize_name(package) == name.package and Version(version) == name.version
    except InvalidVersion:
        return False
