"""What our gateway and worker answer and store, compared with what the existing system does, request by request."""

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from typing import Any

import httpx2
import pytest

from . import scene
from .asks import changes, keyed, readings
from .beside import Side, side_by_side
from .existing import Existing
from .likeness import differences, error_without_words, neutral, parsed
from .on_purpose import ON_PURPOSE
from .scene import Told
from .submitted import submissions, yaml_submissions

pytestmark = pytest.mark.moving

_ERROR = 400


@dataclass
class Both:
    """The two sides, and what they have told."""

    sides: tuple[Side, Side]
    told: tuple[Told, Told]

    def answers(self) -> Iterator[tuple[str, httpx2.Response, httpx2.Response]]:
        """Return each answer of both."""
        for (name, theirs), (_, ours) in zip(self.told[0].answers, self.told[1].answers, strict=True):
            yield name, theirs, ours

    def neutral(self, left: Any, right: Any) -> tuple[Any, Any]:
        """Return two values without what differs by chance."""
        return neutral(left, self.sides[0].names), neutral(right, self.sides[1].names)


@pytest.fixture(scope="module")
def both(existing: Existing, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    """Both sides, prepared and asked."""
    folder = tmp_path_factory.mktemp("beside")
    asked = list(chain(readings(), changes(), submissions(), yaml_submissions(), keyed()))
    wheels = scene.make_wheels(folder)

    def tell(side: Side) -> Told:
        told = Told()
        side.names |= dict.fromkeys((url.removeprefix("http://") for url in (side.url, side.guarded)), "<host>")
        scene.prepare(side, wheels, told)
        scene.ask(side, asked, told)
        scene.look(side, told)
        return told

    with side_by_side(existing, folder) as sides, ThreadPoolExecutor(2) as pool:
        theirs, ours = pool.map(tell, sides)
        yield Both(sides, (theirs, ours))


def test_every_difference_is_on_purpose(both: Both) -> None:
    found = [f"{name} | {difference}" for name, theirs, ours in both.answers() if name != "openapi"
             for difference in _compared(both, theirs, ours)]  # fmt: skip
    left, right = both.neutral(both.told[0].stored, both.told[1].stored)
    found += [f"stored | {difference}" for difference in differences(left, right)]
    assert len(both.told[0].answers) > 250
    unexplained = [one for one in found if not any(re.search(pattern, one) for pattern in ON_PURPOSE)]
    assert not unexplained, "\n".join(unexplained)
    stale = [pattern for pattern in ON_PURPOSE if not any(re.search(pattern, one) for one in found)]
    assert not stale, f"no more a difference: {stale}"


def _compared(both: Both, theirs: httpx2.Response, ours: httpx2.Response) -> Iterator[str]:
    if theirs.status_code != ours.status_code:
        yield f"status {theirs.status_code}, here {ours.status_code}: {ours.text[:200]}"
        return
    kinds = [answer.headers.get("content-type", "") for answer in (theirs, ours)]
    if kinds[0].partition(";")[0] != kinds[1].partition(";")[0]:
        yield f"content-type {kinds[0]}, here {kinds[1]}"
        return
    yield from (f"header {name} is missing" for name in theirs.headers if name not in ours.headers)
    if kinds[0].startswith("text/html"):
        return
    left, right = (parsed(kinds[0], answer.text) for answer in (theirs, ours))
    if theirs.status_code >= _ERROR:
        left, right = error_without_words(left), error_without_words(right)
    yield from differences(*both.neutral(left, right))


def test_every_path_method_and_parameter_is_described(both: Both) -> None:
    [(theirs, ours)] = [(left.json(), right.json()) for name, left, right in both.answers() if name == "openapi"]

    def described(text: dict[str, Any]) -> set[tuple[str, ...]]:
        found: set[tuple[str, ...]] = set()
        for path, methods in text["paths"].items():
            shown = re.sub(r"\{[^}]*\}", "{}", path)
            for method, what in methods.items():
                found.add((method, shown))
                found |= {(method, shown, one["name"]) for one in what.get("parameters", ()) if one["in"] == "query"}
        return found

    assert described(theirs) - described(ours) == set()
