"""Steps that are ordered by what each waits for, while they run."""

from collections import defaultdict

from pyoco_server.model.flow.branches import Branches
from pyoco_server.worker.child.flow.wiring import WiredContext


class Join:
    """Knows which of some steps can begin, and which never will.

    Attributes:
        steps: The steps; they are named by their places.
        ctx: What they read.
        left: How many have neither ended nor been lost.
        has_failed: Whether one that no other waits for has failed or is lost. What another one can do without does not
            count.
    """

    def __init__(self, branches: Branches, ctx: WiredContext) -> None:
        self.steps = branches.steps
        self.ctx = ctx
        self.left = len(self.steps)
        self.has_failed = False
        self._unmet = [len(groups) for groups in branches.waits]
        """How many groups each step still waits for; less than 0 once it is lost."""
        self._left = [[len(group) for group in groups] for groups in branches.waits]
        """How many steps of each group may still be done; 0 once one of them is."""
        self._behind: defaultdict[int, list[tuple[int, int]]] = defaultdict(list)
        """By step: the groups that it is in."""
        for step, groups in enumerate(branches.waits):
            for number, group in enumerate(groups):
                for before in group:
                    self._behind[before].append((step, number))

    def first(self) -> list[int]:
        """Return the steps that wait for nothing."""
        return [step for step, unmet in enumerate(self._unmet) if not unmet]

    def done(self, step: int) -> list[int]:
        """Take note of a step that is done; return those that can begin now."""
        self.left -= 1
        begun = []
        for behind, group in self._behind.get(step, ()):
            if self._left[behind][group]:
                self._left[behind][group] = 0
                self._unmet[behind] -= 1
                if not self._unmet[behind]:
                    begun.append(behind)
        return begun

    def failed(self, step: int) -> list[int]:
        """Take note of a step that failed; return those that are lost with it."""
        lost, failed = [], [step]
        while failed:
            self.left -= 1
            ways = self._behind.get(failed.pop())
            self.has_failed = self.has_failed or not ways
            for behind, group in ways or ():
                if not self._left[behind][group] or self._unmet[behind] < 0:
                    continue
                self._left[behind][group] -= 1
                if not self._left[behind][group]:
                    self._unmet[behind] = -1
                    lost.append(behind)
                    failed.append(behind)
        return lost
