"""A worker's record: what it serves, what it does, and how its state is read from its last sign of life."""

import time
from enum import Enum
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import Self

from pyoco_server.model.wheels.sync import beginning


class WorkerState(str, Enum):
    """What a worker is doing, as a reader sees it."""

    RUNNING = "RUNNING"  # it has at least one run
    IDLE = "IDLE"
    STOPPED_GRACEFUL = "STOPPED_GRACEFUL"  # it said goodbye; never shown as DISCONNECTED
    DISCONNECTED = "DISCONNECTED"  # never stored: derived when the last sign of life is too old

    @property
    def is_active(self) -> bool:
        """Tell whether the worker is there."""
        return self in (WorkerState.RUNNING, WorkerState.IDLE)


class TroubleKind(str, Enum):
    """What of its machine keeps a worker from beginning runs."""

    STATE_DIRECTORY = "state_directory"  # no run's directory can be made: full, read-only, not permitted, …
    START_DIRECTORY = "start_directory"  # the directory in which it was started is gone, or cannot be read
    PROGRAM = "program"  # its interpreter or its own package is gone
    ENVIRONMENT = "environment"  # the directory of its wheels is gone
    PROCESS = "process"  # no process can be started, or no file opened


class WorkerTrouble(BaseModel):
    """Why a worker takes no runs, or fewer than it has slots; it tries again by itself.

    Args:
        kind: A value of ``TroubleKind``, or one of a newer version.
        reason: In one sentence, in English.
        since: When it was first seen, in unix seconds.
        next_try_at: When it is tried again.
        slots: How many slots take no runs because of it.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    kind: str
    reason: str
    since: float
    next_try_at: float | None = None
    slots: int = 1

    def evolve(self, **changes: Any) -> Self:
        """Return a copy with the changes."""
        return self.model_copy(update=changes)


class TasksRun(BaseModel):
    """As whom the tasks of a worker run, and what keeps them from the processes around them.

    Args:
        confinement: ``whole``; ``partial`` where the machine's Linux has not all of it; ``off``.
        missing: What is missing, in one sentence; ``None`` if nothing is.
        user: The name of their user.
        root: Whether that is root.
        own_user: Whether it is another user than the worker's.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    confinement: str
    missing: str | None = None
    user: str | None = None
    root: bool = False
    own_user: bool = False


class GpuFigures(BaseModel):
    """One GPU of a worker's machine; ``None`` for what it does not tell.

    Args:
        index: Its number.
        name: What its maker calls it.
        memory_used_bytes: Of all processes of the machine.
        memory_total_bytes: How much it has.
        utilization_percent: Part of the last moment in which it computed.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    index: int
    name: str | None = None
    memory_used_bytes: int | None = None
    memory_total_bytes: int | None = None
    utilization_percent: float | None = None


class WorkerRecord(BaseModel):
    """One worker process, as stored under its id and rewritten with every heartbeat.

    Args:
        worker_id: Its name.
        instance_id: Tells this process from another one with the same name.
        state: As the worker wrote it; readers see ``state_at``.
        hidden: Left out of lists; kept over restarts.
        tags: What it serves.
        slots: How many runs it takes at a time.
        slots_in_use: How many it has now.
        host: Name of its machine.
        pid: Its process.
        version: Of pyoco-server.
        last_pull_at: When NATS last answered it whether there is a job, in unix seconds.
        heartbeat_interval_sec: Seconds between two heartbeats.
        current_run_ids: The runs that it has.
        isolation: ``process``: each run has a process of its own; ``shared``: runs of one tenant and flow share one.
        preload: Modules that are imported once for all runs.
        tasks_run: As whom tasks run, and what keeps them from other processes; ``None`` from older workers.
        draining: It takes no more runs, and stops when those that it has have ended.
        drain_requested_at: When somebody asked it to drain, in unix seconds.
        drain_reason: The reason that was given then.
        memory_bytes: Resident memory of the worker and of all processes that it started; shared pages count in each.
        cpu_percent: Their CPU time in the last heartbeat interval; 100 is one core.
        host_cpu_count: Cores of its machine.
        host_load_1m: Load average of its machine over a minute.
        host_memory_total_bytes: Memory of its machine.
        host_memory_available_bytes: What of it can be had without swapping.
        gpus: The GPUs of its machine that NVIDIA's library shows.
        stopped_at: When it stopped in order, in unix seconds.
        stop_reason: Why: a signal's name, ``drained``, …
        wheel_sync: What it has from the registry of wheels.
        trouble: What keeps it from beginning runs; ``None`` while nothing does.
        existing_system: Whether it is a worker of the existing system, which knows less: told by what it leaves out.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    worker_id: str
    instance_id: str = ""
    state: WorkerState = WorkerState.IDLE
    hidden: bool = False
    tags: list[str] = Field(default_factory=list)
    slots: int = 1
    slots_in_use: int = 0
    host: str | None = None
    pid: int | None = None
    version: str | None = None
    started_at: float | None = None
    last_seen_at: float = 0.0
    last_heartbeat_at: float = 0.0
    heartbeat_at: float = 0.0
    last_pull_at: float | None = None
    heartbeat_interval_sec: float = 5.0
    current_run_id: str | None = None
    current_run_ids: list[str] = Field(default_factory=list)
    isolation: str | None = None
    preload: list[str] = Field(default_factory=list)
    tasks_run: TasksRun | None = None
    draining: bool = False
    drain_requested_at: float | None = None
    drain_reason: str | None = None
    memory_bytes: int | None = None
    cpu_percent: float | None = None
    host_cpu_count: int | None = None
    host_load_1m: float | None = None
    host_memory_total_bytes: int | None = None
    host_memory_available_bytes: int | None = None
    gpus: list[GpuFigures] = Field(default_factory=list)
    last_run_id: str | None = None
    last_run_status: str | None = None
    last_run_started_at: float | None = None
    last_run_finished_at: float | None = None
    stopped_at: float | None = None
    stop_reason: str | None = None
    updated_at: float = 0.0
    wheel_sync: dict[str, Any] = Field(default_factory=lambda: beginning(enabled=False))
    trouble: WorkerTrouble | None = None
    existing_system: bool = False

    @property
    def unfit_slots(self) -> int:
        """How many of its slots take no runs because of its machine."""
        return self.trouble.slots if self.trouble is not None else 0

    @property
    def is_unfit(self) -> bool:
        """Whether none of its slots takes runs because of its machine."""
        return self.trouble is not None and self.trouble.slots >= self.slots

    @property
    def takes_runs(self) -> bool:
        """Whether it takes runs while it is there."""
        return not self.draining and not self.is_unfit

    def evolve(self, **changes: Any) -> Self:
        """Return a copy with the changes."""
        return self.model_copy(update=changes)

    def to_json(self) -> bytes:
        """Give the stored form."""
        return self.model_dump_json().encode()

    @classmethod
    def from_json(cls, raw: bytes) -> Self:
        """Read the stored form.

        Raises:
            pydantic.ValidationError: not a worker's record.
        """
        record = cls.model_validate_json(raw)
        if not record.existing_system and "slots" in record.model_fields_set:  # ours write every field
            return record
        runs = [record.current_run_id] if record.current_run_id and record.state.is_active else []
        return record.evolve(existing_system=True, current_run_ids=runs, slots_in_use=len(runs))

    def state_at(self, now: float, disconnect_timeout_sec: float) -> WorkerState:
        """Derive the state that a reader sees at ``now`` (unix seconds)."""
        if self.state is WorkerState.STOPPED_GRACEFUL:
            return self.state
        if now - self.last_seen_at > disconnect_timeout_sec:
            return WorkerState.DISCONNECTED
        return self.state

    def silent_for(self, now: float) -> float:
        """Tell how many seconds ago the last sign of life came."""
        return now - self.last_heartbeat_at

    def holds(self, run_id: str, instance_id: str | None, *, now: float, patience: float) -> bool:
        """Tell whether this very process has a run and is alive.

        Args:
            run_id: The run.
            instance_id: The process that the run's record names.
            now: Unix seconds.
            patience: Seconds of silence after which a worker counts as dead.
        """
        return (
            self.instance_id == instance_id
            and self.state.is_active
            and run_id in self.current_run_ids
            and self.silent_for(now) <= patience
        )

    def request_drain(self, reason: str | None) -> Self:
        """Return the record with the wish that this very process drains; a second wish changes nothing."""
        if self.draining:
            return self
        now = time.time()
        return self.evolve(draining=True, drain_requested_at=now, drain_reason=reason, updated_at=now)

    def seen(self, runs: list[str], last_pull_at: float | None) -> Self:
        """Return the record of a heartbeat now."""
        now = time.time()
        return self.evolve(
            state=WorkerState.RUNNING if runs else WorkerState.IDLE,
            current_run_id=runs[0] if runs else None,
            current_run_ids=runs,
            slots_in_use=len(runs),
            last_pull_at=last_pull_at,
            last_seen_at=now,
            last_heartbeat_at=now,
            heartbeat_at=now,
            updated_at=now,
        )
