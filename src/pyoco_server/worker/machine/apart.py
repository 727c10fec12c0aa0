"""What keeps the processes of runs from the rest of the machine, as the settings and this kernel have it."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from pyoco_server.errors import CommandFailed
from pyoco_server.model.worker import TasksRun
from pyoco_server.settings.environment import Settings
from pyoco_server.worker.child.confinement.confinement import support
from pyoco_server.worker.child.confinement.task_user import TaskUser, user_name

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Apart:
    """As whom tasks run, and whether they are confined.

    Args:
        confine: Whether they are.
        missing: What this kernel lacks for that, in one sentence; empty if nothing.
        user: Their user, where it is not the worker's own.
        runs: Where their directories are made.
        guarded: Whether there are keys, so that tasks are not trusted with everything.
    """

    confine: bool = False
    missing: str = ""
    user: TaskUser | None = None
    runs: str = ""
    guarded: bool = False

    @classmethod
    def of(cls, settings: Settings, runs: Path) -> "Apart":
        """Decide it.

        Args:
            settings: What is wanted.
            runs: Where the directories of runs are made.

        Raises:
            CommandFailed: this machine has no such user, or cannot do what the settings insist on.
        """
        guarded = settings.http_auth_mode != "none"
        wanted = settings.confine_tasks
        confine = wanted == "on" or (wanted == "auto" and (guarded or settings.run_as is not None))
        missing = support().missing if confine else ""
        if wanted == "on" and missing:
            raise CommandFailed(
                f"PYOCO_CONFINE_TASKS=on: {missing}",
                hint="Take a newer Linux, or PYOCO_CONFINE_TASKS=auto, and with it as much as there is.",
            )
        try:
            user = TaskUser.named(settings.run_as) if settings.run_as else None
        except LookupError:
            raise CommandFailed(
                f"--run-as {settings.run_as}: there is no such user on this machine",
                hint="Make one: useradd --system --create-home NAME",
            ) from None
        return cls(confine, missing, user, str(runs), guarded)

    def for_children(self) -> dict[str, Any]:
        """Return what a template needs to know of it."""
        return {"confine": self.confine, "run_as": self.user.name if self.user else None, "runs": self.runs}

    def told(self) -> TasksRun:
        """Return it as the worker's record has it."""
        uid = self.user.uid if self.user else os.geteuid()
        level = "off" if not self.confine else "partial" if self.missing else "whole"
        return TasksRun(
            confinement=level,
            missing=self.missing or None,
            user=self.user.name if self.user else user_name(uid),
            root=uid == 0,
            own_user=self.user is not None and self.user.uid != os.geteuid(),
        )

    def warn(self) -> None:
        """Say in the log what is weak, once, at the start."""
        if self.missing:
            log.warning("tasks are not wholly confined", reason=self.missing)
        elif self.guarded and not self.confine:
            log.warning("keys are on, and tasks are not confined (PYOCO_CONFINE_TASKS=off): they reach this worker")


TOGETHER = Apart()
"""Nothing keeps them apart."""
