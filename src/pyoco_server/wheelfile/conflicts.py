"""Whether wheels get on with each other in one directory: of two that want the same place, the older owner has it.

Sharing a folder is no conflict, nor is a file that is the same in both. A package with an ``__init__`` that says
something belongs to one wheel, and nobody else adds files to it; one whose ``__init__`` only declares a namespace, or
is empty, may be shared by wheels that bring the same one.
"""

import hashlib
import re
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from pyoco_server.wheelfile.archive import parents, read_blocks
from pyoco_server.wheelfile.layout import folded

_MODULE = re.compile(r"(?P<name>[^.]+)(?:\.[\w-]+)*\.(?:py|pyc|so|pyd)")
_INIT = "__init__"
_NAMESPACE = (b"extend_path", b"declare_namespace")
_NOT_IMPORTED = ("bin/", "include/")
_CLAIMS_BYTES = 8 << 10
"""How much is told of what a wheel has: it travels with every look at the registry."""
_COMPARED_BYTES = 512 << 20
"""How many bytes are compared for one wheel's sake."""
_SHORT = 4096
"""Bytes up to which an ``__init__`` may be a namespace's."""


class TooMuchInCommon(Exception):
    """Two wheels have too many bytes in common to compare them."""


@dataclass(frozen=True)
class Layout:
    """Where a wheel's files are installed to.

    Args:
        name: The wheel's file name.
        places: The member by its place; ``""`` for what the installer writes.
        archive: The wheel.
        stored_at: When it was stored (unix seconds).
        since: Since when its package has had each of its claims, as far as that is known (unix seconds).
    """

    name: str
    places: dict[str, str]
    archive: zipfile.ZipFile
    stored_at: float = 0.0
    since: Mapping[str, float] = field(default_factory=dict)
    compared: list[int] = field(default_factory=lambda: [0])
    """How many bytes have been compared for its sake."""

    def since_when(self, place: str) -> float:
        """Return since when its package has had a place (unix seconds)."""
        paths = [folded(place), _import_path(place), *parents(folded(place))]
        found = [self.since[path] for path in paths if path is not None and path in self.since]
        return min(found, default=self.stored_at)

    def has_same(self, place: str, other: "Layout", others: str) -> bool:
        """Whether a file is the same as one of another wheel.

        Raises:
            TooMuchInCommon: so many are that it would take too long to compare them.
        """
        mine, its = self.places[place], other.places[others]
        if not mine or not its:
            return False  # a command: written anew for each wheel
        one, two = self.archive.getinfo(mine), other.archive.getinfo(its)
        if (one.file_size, one.CRC) != (two.file_size, two.CRC):
            return False
        self.compared[0] += one.file_size + two.file_size
        if self.compared[0] > _COMPARED_BYTES:
            raise TooMuchInCommon
        return self.digest(mine) == other.digest(its)

    def digest(self, member: str) -> bytes:
        """Return the digest of a member's bytes."""
        digest = hashlib.sha256()
        for block in read_blocks(self.archive, self.archive.getinfo(member)):
            digest.update(block)
        return digest.digest()

    def may_be_shared(self, place: str) -> bool:
        """Whether an ``__init__`` is empty, or declares a namespace."""
        member = self.places[place]
        if not member or not place.endswith(".py"):
            return False
        info = self.archive.getinfo(member)
        if info.file_size > _SHORT:
            return False
        content = b"".join(read_blocks(self.archive, info))
        lines = [line for line in map(bytes.strip, content.splitlines()) if line and not line.startswith(b"#")]
        return not lines or any(word in content for word in _NAMESPACE)


@dataclass(frozen=True)
class Clash:
    """Two wheels that want the same.

    Args:
        owner: The one that was there.
        owned: Its place.
        place: The other one's.
        what: What the owner has, to follow its name.
    """

    owner: Layout
    owned: str
    place: str
    what: str


def claims_of(layout: Layout) -> list[str]:
    """Return what a wheel has as its own: packages and modules, and the files that belong to none, as paths.

    Of very many only the first are told.
    """
    view = _View(layout)
    roots = {path for path in view.modules if path and not any(folder in view.inits for folder in parents(path))}
    roots = {path for path in roots if not path.startswith(_NOT_IMPORTED)}
    files = [
        place
        for place in layout.places
        if not _is_metadata(place)
        and _import_path(place) not in roots
        and not any(folder in roots for folder in parents(folded(place)))
    ]
    claims: list[str] = []
    left = _CLAIMS_BYTES
    for claim in [*sorted(roots, key=lambda path: (path.count("/"), path)), *sorted(map(folded, files))]:
        left -= len(claim.encode("utf-8", "replace")) + 24
        if left < 0:
            break
        claims.append(claim)
    return claims


def compare(layouts: Mapping[int, Layout], begin: Callable[[int], None] = lambda _: None) -> dict[int, str]:
    """Return which wheels are to be left out, and why: of two that want the same, the one that has had it longer stays.

    Args:
        layouts: The wheels, by any number.
        begin: Called before each one is compared.
    """
    out: dict[int, str] = {}
    numbers = {id(layout): number for number, layout in layouts.items()}
    ordered = sorted(layouts, key=lambda number: (_oldest(layouts[number]), layouts[number].name))
    again = True
    while again:
        again = False
        together = Together()
        for layout in layouts.values():
            layout.compared[0] = 0
        for number in ordered:
            if number in out:
                continue
            new = layouts[number]
            begin(number)
            try:
                clash = together.add(new)
            except Exception as error:  # noqa: BLE001 - whatever somebody uploaded: it must not hide the others
                out[number] = f"it cannot be compared with the others: {type(error).__name__}: {str(error)[:200]}"
                continue
            if clash is None:
                continue
            if new.since_when(clash.place) < clash.owner.since_when(clash.owned):
                # The other one came to this place later, although it has had others for longer.
                out[numbers[id(clash.owner)]] = _said(clash.owned, new, f"has had {clash.place!r} for longer")
                again = True
                break
            out[number] = _said(clash.place, clash.owner, clash.what)
    return out


def _oldest(layout: Layout) -> float:
    return min(layout.since.values(), default=layout.stored_at)


@dataclass
class Together:
    """Wheels that get on with each other."""

    _files: dict[str, tuple[Layout, str]] = field(default_factory=dict)
    _folders: dict[str, tuple[Layout, str]] = field(default_factory=dict)
    _inits: dict[str, tuple[Layout, str]] = field(default_factory=dict)
    """The ``__init__`` of each package, by the package's folder."""
    _modules: dict[str, dict[str, tuple[Layout, str]]] = field(default_factory=dict)
    """What is imported by each name, written as a path: the files, by their places."""
    _importable: dict[str, tuple[Layout, str]] = field(default_factory=dict)
    """Folders from which something can be imported."""

    def add(self, new: Layout) -> Clash | None:
        """Take a wheel in, if nobody who is there has any of its places.

        Returns:
            Who has one; ``None`` if it was taken in.
        """
        view = _View(new)
        for place in new.places:
            clash = self._file(view, place)
            if clash is not None:
                return clash
        clash = self._package(view) or self._module(view)
        if clash is None:
            self._enter(view)
        return clash

    def _file(self, view: "_View", place: str) -> Clash | None:
        key = folded(place)
        if key in self._files:
            return self._same_file(view, place, *self._files[key])
        if key in self._folders:
            return Clash(*self._folders[key], place, "has a folder of that name")
        for folder in parents(key):
            if folder in self._files:
                owner, path = self._files[folder]
                return Clash(owner, path, place, f"has a file {path!r}")
            init = self._inits.get(folder)
            if init is not None and not view.shares(folder, *init):
                return Clash(*init, place, f"has the package {init[1].rpartition('/')[0]!r}")
        return None

    def _same_file(self, view: "_View", place: str, owner: Layout, path: str) -> Clash | None:
        if path != place:
            return Clash(owner, path, place, f"has {path!r}, which some machines take for the same")
        try:
            same = view.layout.has_same(place, owner, path)
        except TooMuchInCommon:
            return Clash(owner, path, place, "has so much of the same that it cannot be compared")
        if not same:
            return Clash(owner, path, place, "has another file of that name")
        return None

    def _package(self, view: "_View") -> Clash | None:
        """Look for a folder that would become a package although another wheel has files in it."""
        for folder, place in view.inits.items():
            other = self._folders.get(folder)
            if other is not None and folder not in self._inits:
                return Clash(*other, place, f"has {other[1]!r}, and no __init__ in that folder")
        return None

    def _module(self, view: "_View") -> Clash | None:
        """Look for what would be imported in another one's place."""
        for module, places in view.modules.items():
            known = self._modules.get(module, {})
            added = next((place for place in places if folded(place) not in known), None)
            if known and added is not None:
                owner, path = next(iter(known.values()))
                return Clash(owner, path, added, f"has {path!r}, which is imported by the same name")
            if module in self._importable and module not in view.inits:
                owner, path = self._importable[module]
                return Clash(owner, path, places[0], f"has {path!r}, which would not be found any more")
        for folder, place in view.importable.items():
            known = self._modules.get(folder, {})
            if known and folder not in self._inits:
                owner, path = next(iter(known.values()))
                return Clash(owner, path, place, f"has {path!r}, which is imported by the same name")
        return None

    def _enter(self, view: "_View") -> None:
        for place in view.layout.places:
            self._files.setdefault(folded(place), (view.layout, place))
        for folder, place in view.folders.items():
            self._folders.setdefault(folder, (view.layout, place))
        for folder, place in view.inits.items():
            self._inits.setdefault(folder, (view.layout, place))
        for module, places in view.modules.items():
            files = self._modules.setdefault(module, {})
            for place in places:
                files.setdefault(folded(place), (view.layout, place))
        for folder, place in view.importable.items():
            self._importable.setdefault(folder, (view.layout, place))


class _View:
    """What a layout means to Python."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.folders: dict[str, str] = {}
        self.inits: dict[str, str] = {}
        self.modules: dict[str, list[str]] = {}
        self.importable: dict[str, str] = {}
        self._shared: dict[str, bool] = {}
        for place in layout.places:
            key = folded(place)
            for folder in parents(key):
                if folder in self.folders:
                    break
                self.folders[folder] = place
            self._read(place, key)

    def shares(self, folder: str, owner: Layout, init: str) -> bool:
        """Whether this wheel brings the same ``__init__`` as the owner, and it is one that may be shared."""
        if folder not in self._shared:
            mine = self.inits.get(folder)
            self._shared[folder] = (
                mine == init and owner.may_be_shared(init) and self.layout.has_same(init, owner, init)
            )
        return self._shared[folder]

    def _read(self, place: str, key: str) -> None:
        path = _import_path(key)
        if path is None or _is_metadata(key):
            return
        if _is_init(key):
            self.inits.setdefault(path, place)
        self.modules.setdefault(path, []).append(place)
        folder = path if _is_init(key) else path.rpartition("/")[0]
        while folder and folder not in self.importable:
            self.importable[folder] = place
            folder = folder.rpartition("/")[0]


def _import_path(place: str) -> str | None:
    """Return by which name a file is imported, as a path; ``None`` if it is none that Python imports."""
    folder, _, last = folded(place).rpartition("/")
    found = _MODULE.fullmatch(last)
    if found is None:
        return None
    if folder.rpartition("/")[2] == "__pycache__":  # imported in place of the module beside that folder
        folder = folder.rpartition("/")[0]
    if found["name"] == _INIT:
        return folder
    return f"{folder}/{found['name']}" if folder else found["name"]


def _is_init(key: str) -> bool:
    return key.rpartition("/")[2].partition(".")[0] == _INIT


def _is_metadata(place: str) -> bool:
    return folded(place.partition("/")[0]).endswith(".dist-info")


def _said(place: str, owner: Layout, what: str) -> str:
    return f"it has {place!r}, but {owner.name} {what}, and was there first"
