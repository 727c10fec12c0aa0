"""What a step waits for: groups of steps, of each of which one must be done. And an order in which all is kept."""

import heapq
from collections.abc import Iterable, Sequence

from pyoco_server.model.flow.branches import Wait

MOST_GROUPS = 2000
MOST_WAITS = 100_000
"""Steps that all steps of a level wait for, added up."""


class TooManyWaits(Exception):
    """The steps would wait for too many others."""


def both(waits: Iterable[Wait]) -> Wait:
    """Return the wait for all of several."""
    return tuple(dict.fromkeys(group for wait in waits for group in wait))


def either(waits: Iterable[Wait]) -> Wait:
    """Return the wait for one of several: of two conjunctions the groups are joined in every combination.

    Raises:
        TooManyWaits: there are too many combinations.
    """
    plain: set[int] = set()
    others: list[Wait] = []
    for wait in waits:
        if len(wait) == 1:
            plain |= wait[0]
        else:
            others.append(wait)
    groups: Wait = (frozenset(plain),)
    for wait in others:
        sizes = len(wait) * sum(map(len, groups)) + len(groups) * sum(map(len, wait))
        if len(groups) * len(wait) > MOST_GROUPS or sizes > MOST_WAITS:
            raise TooManyWaits
        groups = tuple(dict.fromkeys(one | other for one in groups for other in wait))
    return groups


def size_of(wait: Wait) -> int:
    """Return how many steps are waited for, each as often as it is."""
    return sum(map(len, wait))


def in_order(waits: Sequence[Wait]) -> list[int]:
    """Return the steps in an order in which each stands behind all that it waits for, else in their own order.

    Those that stand in a circle, and those behind it, are left out.
    """
    waiting: list[int] = []
    followers: list[list[int]] = [[] for _ in waits]
    for step, wait in enumerate(waits):
        before = frozenset().union(*wait)
        waiting.append(len(before))
        for other in before:
            followers[other].append(step)
    ready = [step for step, count in enumerate(waiting) if not count]
    order = []
    while ready:
        step = heapq.heappop(ready)
        order.append(step)
        for follower in followers[step]:
            waiting[follower] -= 1
            if not waiting[follower]:
                heapq.heappush(ready, follower)
    return order


def circle_in(waits: Sequence[Wait], order: Iterable[int]) -> list[int]:
    """Return steps that wait for each other, each for the one before it and the first for the last."""
    left = set(range(len(waits))) - set(order)
    way, seen = [min(left)], {}
    while way[-1] not in seen:
        seen[way[-1]] = len(way) - 1
        way.append(min(left & frozenset().union(*waits[way[-1]])))
    return way[seen[way[-1]] : -1][::-1]


def all_before(waits: Sequence[Wait], *, certain: bool) -> list[int]:
    """Return for each step, as bits, the steps that are done before it starts.

    Args:
        waits: Of steps that stand behind all that they wait for.
        certain: Leave out those that an any-of group may do without.
    """
    known: dict[int, int] = {}
    closed: list[int] = []
    found = []
    for step, wait in enumerate(waits):
        before = known.get(id(wait))  # many steps may have the same wait, and it the same long groups
        if before is None:
            before = 0
            for group in wait:
                bits = [closed[other] for other in group]
                together = bits[0]
                for one in bits[1:]:
                    together = together & one if certain else together | one
                before |= together
            known[id(wait)] = before
        found.append(before)
        closed.append(before | 1 << step)
    return found
