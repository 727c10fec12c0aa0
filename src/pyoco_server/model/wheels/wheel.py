"""Wheels: what is known of a stored one, and which of them a worker uses."""

import hashlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.tags import Tag
from packaging.utils import BuildTag
from packaging.version import Version
from pydantic import BaseModel, ConfigDict, Field

from pyoco_server.errors import InvalidInput, WheelVersionConflict
from pyoco_server.model.wheels.file_name import WheelName, package_name, parse_pin, parse_wheel_name


class WheelEntry(BaseModel):
    """One stored wheel."""

    model_config = ConfigDict(frozen=True)

    name: str
    """Its file name."""
    size_bytes: int
    digest: str
    """As the object store writes it: ``SHA-256=`` and base64."""
    sha256_b64: str
    sha256_hex: str
    mtime: str
    """When its bytes were stored, in ISO 8601."""
    modified: float
    """The same in unix seconds."""
    bucket: str
    nuid: str
    """Names its bytes in the bucket."""
    tags: list[str] = Field(default_factory=list)
    """The workers that use it; none: all of them."""
    package: str | None = None
    """Normalised; ``None``, as ``version``, where another program stored a file whose name is no wheel's."""
    version: str | None = None
    pinned_at: float | None = None
    """Since when this version is to be used although there may be newer ones (unix seconds)."""
    requires_python: str | None = None
    tenant_id: str | None = None
    """Whose runs alone have it; ``None``: all tenants share it."""
    claims: dict[str, float] = Field(default_factory=dict, exclude=True, repr=False)
    """Since when the package has had each of its modules and files (unix seconds), as far as that is known."""

    def has_had(self, claim: str, otherwise: float) -> float:
        """Return since when the package has had a module or file: since ever, where that is not known of any.

        Args:
            claim: The module or file.
            otherwise: The answer where this version does not have it (unix seconds).
        """
        return self.claims.get(claim, otherwise) if self.claims else self.modified


class Skipped(NamedTuple):
    """A wheel that is meant for a worker, but cannot be installed there."""

    entry: WheelEntry
    reason: str
    """In a sentence."""
    code: str = "unsupported_wheel_tags"


class Selection(NamedTuple):
    """What one worker uses."""

    chosen: tuple[WheelEntry, ...]
    """One wheel for each package, sorted by package."""
    skipped_incompatible: tuple[Skipped, ...]
    """Sorted by name."""


def check_newer(entries: Iterable[WheelEntry], wanted: WheelName, tenant_id: str | None = None) -> None:
    """Let a wheel in only if its package has no such version and no newer one yet, whatever their tags.

    Args:
        entries: Every stored wheel.
        wanted: The one to let in.
        tenant_id: Whose it is; what others have of the package, or all share, does not count.

    Raises:
        WheelVersionConflict: it has; the message names the newest.
    """
    stored = [
        entry
        for entry in entries
        if entry.package == wanted.package and entry.version is not None and entry.tenant_id == tenant_id
    ]
    if not stored:
        return
    newest = max(stored, key=_version)
    if wanted.version > _version(newest):
        return
    raise WheelVersionConflict(
        f"{wanted.package} {wanted.version} is not newer than {newest.version}, the newest version that is stored "
        f"({newest.name})",
        hint=f"Raise the version above {newest.version} and build anew. "
        f"To go back to an older one that is stored: pyoco-client wheel-pin {wanted.package}==VERSION",
    )


def claims_since(entries: Iterable[WheelEntry], package: str, claims: Iterable[str], now: float) -> dict[str, float]:
    """Return since when a package has had each of what its new version claims (unix seconds).

    Args:
        entries: The stored wheels of the same tenant, or the shared ones.
        package: The package.
        claims: Modules and files of the new version.
        now: The answer for those that no stored version has.
    """
    stored = [entry for entry in entries if entry.package == package]
    return {claim: min([now, *(entry.has_had(claim, now) for entry in stored)]) for claim in claims}


def select(
    entries: Iterable[WheelEntry],
    worker_tags: Iterable[str],
    supported: Sequence[Tag],
    *,
    python_version: str | None = None,
) -> Selection:
    """Choose what a worker uses.

    Args:
        entries: The wheels to choose from: those that all share, and perhaps those of one tenant.
        worker_tags: The tags that the worker serves.
        supported: What its interpreter and platform can install, the best first (``packaging.tags.sys_tags()``).
        python_version: Its interpreter, such as ``3.11.4``; wheels that require another are skipped if it is given.

    Returns:
        Of each package the newest version among the wheels that have no tags or share one with the worker and can be
        installed. Where some of those are pinned, the one that was pinned last goes before newer ones. A tenant's go
        before shared ones in any case.
    """
    serves = frozenset(worker_tags)
    ranks = {tag: rank for rank, tag in enumerate(supported)}
    best: dict[str, tuple[_Order, WheelEntry]] = {}
    skipped: list[Skipped] = []
    for entry in entries:
        if entry.tags and serves.isdisjoint(entry.tags):
            continue
        try:
            name = parse_wheel_name(entry.name)
        except InvalidInput as error:
            skipped.append(Skipped(entry, error.message, "invalid_name"))
            continue
        rank = min((ranks[tag] for tag in name.tags if tag in ranks), default=None)
        if rank is None:
            skipped.append(Skipped(entry, f"it is for {_shown(name.tags)}, which this interpreter cannot install"))
            continue
        unfit = _unfit(entry.requires_python, python_version)
        if unfit:
            skipped.append(Skipped(entry, unfit, "requires_python"))
            continue
        order = _Order(entry.tenant_id is not None, entry.pinned_at or 0.0, name.version, -rank, name.build, entry.name)
        if name.package not in best or order > best[name.package][0]:
            best[name.package] = (order, entry)
    return Selection(
        tuple(best[package][1] for package in sorted(best)),
        tuple(sorted(skipped, key=lambda item: item.entry.name)),
    )


def named_by(entries: Iterable[WheelEntry], text: str, *, package_alone: bool = False) -> list[WheelEntry]:
    """Find the wheels that a user means.

    Args:
        entries: Those of one tenant, or those that all share.
        text: A file name, or ``NAME==VERSION``, which may be several files.
        package_alone: Whether the name of a package is enough, and means all of its wheels.

    Raises:
        InvalidInput: it is neither.
    """
    found = [entry for entry in entries if entry.name == text]
    if found or text.endswith(".whl"):
        return found
    if package_alone and "==" not in text:
        package = package_name(text)
        return [entry for entry in entries if entry.package == package and entry.version is not None]
    package, version = parse_pin(text)
    return [entry for entry in entries if entry.package == package and _version(entry) == version]


def pins_replaced(entries: Iterable[WheelEntry], pinned: Sequence[WheelEntry]) -> list[WheelEntry]:
    """Give the pins that have no effect any more, because later ones of their package serve all of their workers.

    Args:
        entries: Those of the same tenant, or that all share, as they were before.
        pinned: Those that have been pinned since.
    """

    def covers(entry: WheelEntry, other: WheelEntry) -> bool:
        return not entry.tags or (bool(other.tags) and set(other.tags) <= set(entry.tags))

    names = {entry.name for entry in pinned}
    return [
        other
        for other in entries
        if other.pinned_at is not None
        and other.name not in names
        and any(entry.package == other.package and covers(entry, other) for entry in pinned)
    ]


def set_digest(chosen: Iterable[WheelEntry]) -> str:
    """Give the name of a set of wheels: the same bytes in any order have the same one (64 hexadecimal digits)."""
    return hashlib.sha256("\n".join(sorted(entry.sha256_hex for entry in chosen)).encode()).hexdigest()


class _Order(NamedTuple):
    """What makes a wheel better than another one of its package, most important first."""

    is_own: bool
    pinned_at: float
    version: Version
    fit: int
    build: BuildTag
    name: str


def _version(entry: WheelEntry) -> Version:
    return Version(entry.version or "0")


def _unfit(requires: str | None, python_version: str | None) -> str | None:
    if not requires or python_version is None:
        return None
    try:
        fits = SpecifierSet(requires).contains(python_version, prereleases=True)
    except InvalidSpecifier:
        return f"it requires Python {requires!r}, which cannot be read"
    return None if fits else f"it requires Python {requires}, this is {python_version}"


def _shown(tags: frozenset[Tag]) -> str:
    names = sorted(map(str, tags))
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
