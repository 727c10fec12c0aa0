"""What happened, line by line, and the rules that it must keep.

Clients append what they were answered and what they asked for, tasks append their starts and ends: one ``write`` to a
file opened with O_APPEND each, so that any number of processes may die at any moment without spoiling another's line.
The witness adds what it saw of the records. The checker reads the whole and names every rule that was broken.
"""

import json
import os
import time
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

TERMINAL = {"COMPLETED", "FAILED", "CANCELLED"}
CANCEL = {"CANCELLED", "CANCELLING"}
DEFAULT_ATTEMPTS = 3

Event = dict[str, Any]


class Journal:
    """The file that clients and tasks append to."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def note(self, what: str, run_id: str, **fields: Any) -> None:
        """Append a line."""
        line = json.dumps({"what": what, "run_id": run_id, "at": time.time(), **fields}) + "\n"
        handle = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(handle, line.encode())
        finally:
            os.close(handle)

    def read(self) -> list[Event]:
        """Give all lines, in the order in which they were written."""
        if not self.path.exists():
            return []
        whole, _, _ = self.path.read_text().rpartition("\n")  # a line may be on its way
        return [json.loads(line) for line in whole.splitlines()]


@dataclass
class History:
    """All that is known when everything is over.

    Args:
        events: The journal's lines.
        records: The records as they are stored now, by run_id.
        sightings: Terminal records in the order seen: run_id, revision, stored bytes (``None`` for a removal).
        partitioned: Whether a worker was cut from NATS. It keeps its runs while NATS is away, so executions may
            overlap in time then; a stale one's result must be refused all the same.
        handed_back: Runs whose worker was drained: they may start once more for each time.
    """

    events: list[Event]
    records: dict[str, dict[str, Any]]
    sightings: list[tuple[str, int, bytes | None]] = field(default_factory=list)
    partitioned: bool = False
    handed_back: dict[str, int] = field(default_factory=dict)

    def of(self, what: str) -> Iterable[Event]:
        """Give the events of a kind."""
        return (event for event in self.events if event["what"] == what)

    def by_run(self, what: str) -> dict[str, list[Event]]:
        """Give the events of a kind, grouped."""
        found: dict[str, list[Event]] = defaultdict(list)
        for event in self.of(what):
            found[event["run_id"]].append(event)
        return found

    @property
    def answered(self) -> list[str]:
        """Runs whose submission was answered with their id."""
        return list(dict.fromkeys(event["run_id"] for event in self.of("answered")))

    def broken_rules(self) -> list[str]:
        """Name every broken rule with the run that broke it; an empty list is what we want."""
        rules = (
            self._nothing_is_lost,
            self._one_key_is_one_run,
            self._terminal_stays,
            self._never_overlapping,
            self._no_more_than_allowed,
            self._cancelled_stays_cancelled,
            self._result_is_its_attempts,
        )
        return [said for rule in rules for said in rule()]

    def check(self) -> None:
        """Fail with every broken rule."""
        broken = self.broken_rules()
        assert not broken, f"{len(broken)} broken rules:\n" + "\n".join(broken[:40])

    def _nothing_is_lost(self) -> Iterable[str]:
        for run_id in self.answered:
            record = self.records.get(run_id)
            if record is None:
                yield f"{run_id}: it was answered, and there is no record of it"
            elif record["status"] not in TERMINAL:
                yield f"{run_id}: it was answered, and it is still {record['status']}"

    def _one_key_is_one_run(self) -> Iterable[str]:
        ids: dict[str, set[str]] = defaultdict(set)
        for event in self.of("answered"):
            if event.get("key"):
                ids[event["key"]].add(event["run_id"])
        for key, runs in ids.items():
            if len(runs) > 1:
                yield f"key {key}: it was answered with {len(runs)} runs: {sorted(runs)}"

    def _terminal_stays(self) -> Iterable[str]:
        first: dict[str, tuple[int, bytes]] = {}
        for run_id, revision, raw in self.sightings:
            if run_id not in first:
                if raw is not None:
                    first[run_id] = (revision, raw)
            elif raw is None:
                yield f"{run_id}: its terminal record was removed"
            elif (revision, raw) != first[run_id]:
                yield f"{run_id}: its terminal record changed from revision {first[run_id][0]} to {revision}"
        for run_id, (_, raw) in first.items():
            if run_id in self.records and self.records[run_id] != json.loads(raw):
                yield f"{run_id}: its record is not the terminal one that was seen"

    def _never_overlapping(self) -> Iterable[str]:
        # A task looks at its start whether an earlier execution's process is still alive: exact, unlike any clock.
        if self.partitioned:
            return
        for event in self.of("overlap"):
            yield f"{event['run_id']}: attempt {event['attempt']} started while {event['other']} was alive"
        open_until: dict[str, float] = {}
        for event in self.events:
            if event["what"] == "end":
                open_until[event["run_id"]] = event["at"]
            elif event["what"] == "start" and event["at"] < open_until.get(event["run_id"], 0.0):
                yield f"{event['run_id']}: attempt {event['attempt']} started before the one before it ended"

    def _no_more_than_allowed(self) -> Iterable[str]:
        for run_id, starts in self.by_run("start").items():
            record = self.records.get(run_id, {})
            allowed = (record.get("max_attempts") or DEFAULT_ATTEMPTS) + self.handed_back.get(run_id, 0)
            if len(starts) > allowed:
                yield f"{run_id}: {len(starts)} starts, {allowed} were allowed"

    def _cancelled_stays_cancelled(self) -> Iterable[str]:
        starts = self.by_run("start")
        for event in self.of("cancel"):
            record = self.records.get(event["run_id"])
            if event["status"] in CANCEL and record is not None and record["status"] != "CANCELLED":
                yield f"{event['run_id']}: its cancel was answered {event['status']}, and it ended {record['status']}"
        for run_id, record in self.records.items():
            if record["status"] == "CANCELLED":
                late = [start for start in starts.get(run_id, ()) if start["at"] > record["end_time"]]
                if late:
                    yield f"{run_id}: a task started {late[0]['at'] - record['end_time']:.3f} s after it was CANCELLED"

    def _result_is_its_attempts(self) -> Iterable[str]:
        ends = self.by_run("end")
        starts = self.by_run("start")
        for run_id, record in self.records.items():
            if record["status"] != "COMPLETED" or run_id not in starts:
                continue
            result = ((record.get("task_records") or {}).get("t") or {}).get("output")
            mine = [end for end in ends.get(run_id, ()) if end["result"] == result]
            if len(mine) != 1:
                yield f"{run_id}: the stored result {result!r} is that of {len(mine)} executions"
            elif mine[0]["attempt"] != record["attempt"]:
                yield f"{run_id}: attempt {record['attempt']} stands, with the result of attempt {mine[0]['attempt']}"
