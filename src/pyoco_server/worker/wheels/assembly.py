"""Puts a set of wheels into a directory, and tells which wheel is at fault where that fails.

Whatever one wheel holds, the others must go on. So a failure is a wheel's, unless the machine is at fault: first all
are installed at once; where that fails, each alone.
"""

import asyncio
import sysconfig
import time
from collections.abc import Sequence
from importlib.machinery import PathFinder
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from pyoco_server.wheelfile.inspection import NotInspected, Question, inspect
from pyoco_server.worker.machine.apart import Apart
from pyoco_server.worker.wheels.installer import BuildFailed, Helper, MachineFailed, install, is_machines
from pyoco_server.worker.wheels.plugins import (
    CheckFailed,
    WheelFile,
    WheelsBroken,
    check_plugins,
    offer_plugins,
    start_check,
)
from pyoco_server.worker.wheels.trees import PRIVATE, SHARED, make_folder, remove_tree

_SEARCH = 2.0
"""How many times the time for an installation the search for a culprit may take."""
_REMEMBERED = 10_000


class Assembly:
    """Installs wheels and checks what came of it.

    Args:
        timeout: Seconds that one installation may take, and one check.
        with_dependencies: Fetch what the wheels need from an index.
        stop: Ends what is under way.
        max_bytes: Largest wheel that is taken; sets how much one may unpack to.
        apart: What keeps code of wheels from other processes.
    """

    def __init__(
        self, *, timeout: float, with_dependencies: bool, stop: asyncio.Event, max_bytes: int, apart: Apart
    ) -> None:
        self._timeout = timeout
        self._with_dependencies = with_dependencies
        self._stop = stop
        self._max_bytes = max_bytes
        self._apart = apart
        self._sound: dict[str, str] = {}
        """The digests of wheels that were read whole."""
        self._refused: dict[str, str] = {}
        """Why others were refused, by digest: to look again would tell the same."""

    async def make(self, wheels: Sequence[WheelFile], place: Path, target: Path) -> list[dict[str, Any]]:
        """Install wheels into a new directory.

        Args:
            wheels: The wheels.
            place: A directory of this build alone.
            target: The new directory in it.

        Returns:
            What each plug-in offers.

        Raises:
            WheelsBroken: some of the wheels cannot be used; the others may be.
            BuildFailed: the machine is at fault, or the worker is stopping.
            OSError: the machine is at fault.
        """
        await self._look_into(wheels)
        try:
            return await self._try(wheels, place, target)
        except WheelsBroken:
            raise
        except Exception as error:  # whatever it is: raised again, with the wheel to blame if one is
            if self._stop.is_set():
                raise
            raise await self._blame(wheels, place, error) from error

    async def _look_into(self, wheels: Sequence[WheelFile]) -> None:
        """Look into each wheel, and whether they get on with each other.

        Raises:
            WheelsBroken: some cannot be used.
        """
        known = {wheel.name: self._refused[wheel.sha256] for wheel in wheels if wheel.sha256 in self._refused}
        if known:
            raise WheelsBroken(known)
        ordered = sorted(wheels, key=lambda wheel: (wheel.stored_at, wheel.name))
        questions = [
            Question(wheel.name, wheel.path, wheel.sha256 not in self._sound, wheel.stored_at, wheel.since)
            for wheel in ordered
        ]
        try:
            found = await inspect(questions, max_bytes=self._max_bytes, timeout=self._timeout, stop=self._stop)
        except NotInspected as error:
            raise MachineFailed(str(error)) from error
        hidden = await asyncio.to_thread(lambda: [_hides(finding.claims) for finding in found])
        broken: dict[str, str] = {}
        conflicts: dict[str, str] = {}
        for wheel, finding, hides in zip(ordered, found, hidden, strict=True):
            why = finding.reason or hides
            if why is not None:
                broken[wheel.name] = why
                if finding.reason is not None and finding.is_final:
                    _remember(self._refused, wheel.sha256, finding.reason)
                continue
            _remember(self._sound, wheel.sha256, "")
            if finding.conflict is not None:
                conflicts[wheel.name] = finding.conflict
        if broken or conflicts:
            raise WheelsBroken(broken or conflicts)  # without those that are broken there may be no conflict

    async def _try(
        self, wheels: Sequence[WheelFile], place: Path, target: Path, *, with_check: bool = True
    ) -> list[dict[str, Any]]:
        check: Helper | None = None
        make_folder(target, SHARED if self._apart.user is not None else PRIVATE)
        try:
            if with_check and (self._with_dependencies or await asyncio.to_thread(offer_plugins, wheels)):
                check = await start_check(place, self._apart)  # it imports pyoco while uv works
            await install(
                [wheel.path for wheel in wheels],
                target,
                scratch=place,
                timeout=self._timeout,
                stop=self._stop,
                with_dependencies=self._with_dependencies,
            )
            await asyncio.to_thread(_require_all, wheels, target)
            if check is None:
                return []
            return await check_plugins(check, target, wheels, timeout=self._timeout, stop=self._stop)
        finally:
            if check is not None:
                await check.drop()

    async def _blame(self, wheels: Sequence[WheelFile], place: Path, error: Exception) -> Exception:
        """Find the wheels that an error is about; the newest are looked at first.

        Returns:
            What to raise.
        """
        newest = sorted(wheels, key=lambda wheel: (wheel.stored_at, wheel.name), reverse=True)
        if len(wheels) == 1:
            return error if is_machines(error) else WheelsBroken({newest[0].name: _text(error)})
        deadline = time.monotonic() + _SEARCH * self._timeout
        reasons: dict[str, str] = {}
        machine: set[str] = set()
        is_checks = isinstance(error, CheckFailed)
        for number, wheel in enumerate(newest):
            if time.monotonic() > deadline:
                break
            # What a plug-in needs may be in another wheel, so for the check all but one are there.
            tried = [other for other in wheels if other is not wheel] if is_checks else [wheel]
            failed = await self._fails(tried, place, f"alone-{number}", with_check=is_checks)
            if is_checks and failed is None:
                return WheelsBroken({wheel.name: f"the plug-ins can be checked only without it: {_text(error)}"})
            if not is_checks and failed is not None:
                reasons[wheel.name] = _text(failed)
                if is_machines(failed):
                    machine.add(wheel.name)
        if is_checks or len(machine) == len(wheels):
            return error
        if not reasons:
            reasons = {newest[0].name: f"it cannot be installed together with the others: {_text(error)}"}
            machine = {newest[0].name} if is_machines(error) else set()
        return WheelsBroken(reasons, machine)

    async def _fails(
        self, wheels: Sequence[WheelFile], place: Path, name: str, *, with_check: bool
    ) -> Exception | None:
        """Install wheels for a try, and give what went wrong."""
        target = place / name
        try:
            await self._try(wheels, place, target, with_check=with_check)
        except Exception as error:  # the caller weighs it against those of the other wheels, and tells of it
            if self._stop.is_set():
                raise
            return error
        finally:
            await asyncio.to_thread(remove_tree, target)
        return None


def _remember(known: dict[str, str], digest: str, what: str) -> None:
    if len(known) >= _REMEMBERED:
        known.clear()
    known[digest] = what


def _hides(claims: Sequence[str]) -> str | None:
    """Return which namespace package of the worker's own a wheel would hide.

    All else that the worker has comes before the wheels. But a package or module of that name comes before a folder
    without an ``__init__``, wherever that is.
    """
    places = _own_places()
    for claim in claims:
        spec = PathFinder.find_spec(claim, places) if claim.isidentifier() else None
        if spec is None or spec.origin is not None:
            continue
        for place in spec.submodule_search_locations or ():
            if any(Path(place).rglob("*.py")) or any(Path(place).rglob("*.so")):
                return f"its {claim!r} would hide the namespace package that the worker itself has in {place}"
    return None


def _own_places() -> list[str]:
    return sorted({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")})


def _text(error: Exception) -> str:
    if isinstance(error, WheelsBroken):
        return "; ".join(error.reasons.values())
    if isinstance(error, BuildFailed) or str(error):
        return str(error)
    return type(error).__name__


def _require_all(wheels: Sequence[WheelFile], target: Path) -> None:
    """Look whether every wheel left its metadata where ``importlib.metadata`` looks for it.

    Raises:
        WheelsBroken: some did not.
    """
    there: dict[str, str] = {}
    for found in distributions(path=[str(target)]):
        there[canonicalize_name(found.metadata["Name"] or "")] = _canonical(found.version)
    missing = {
        wheel.name: f"after its installation {wheel.package} {wheel.version} is not there"
        for wheel in wheels
        if there.get(wheel.package) != _canonical(wheel.version)
    }
    if missing:
        raise WheelsBroken(missing)


def _canonical(version: str) -> str:
    try:
        return str(Version(version))
    except InvalidVersion:
        return version
