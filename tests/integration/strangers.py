"""Three tenants with secrets, and things that belong to none, at one gateway."""

import json
import re
import secrets
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2

from pyoco_server.model.access import Role
from pyoco_server.model.deadletter import DeadLetter, DeadLetterReason, letter_of_run
from pyoco_server.model.run import EndReason, RunRecord, RunStatus, claim, request_cancel, settle
from pyoco_server.model.runlog import LogChunk, LogLine, LogStream
from pyoco_server.model.worker import WorkerRecord, WorkerState
from tests.integration.callers import Tenants
from tests.integration.test_gateway import FLOW, until
from tests.wheels import make_wheel

NOBODY = "nobody"


@dataclass
class Tenant:
    """A tenant, and what nobody else may see."""

    name: str
    marker: str
    clients: dict[Role, httpx2.AsyncClient] = field(default_factory=dict)
    key_ids: set[str] = field(default_factory=set)
    operator_keys: set[str] = field(default_factory=set)
    runs: set[str] = field(default_factory=set)
    canaries: dict[Any, int] = field(default_factory=dict)
    """Runs that their own tenant never changes, and their revisions."""
    letters: set[int] = field(default_factory=set)
    cursors: list[str] = field(default_factory=list)
    hashes: set[str] = field(default_factory=set)

    @property
    def secrets(self) -> set[str]:
        """Give the texts by which its things are known."""
        return {self.marker, self.name, *self.key_ids, *self.runs, *self.hashes}


@dataclass
class World:
    """Everybody at one gateway."""

    site: Tenants
    tenants: dict[str, Tenant]
    document: dict[str, Any]
    wheels: list[Path]
    workers: list[str] = field(default_factory=list)

    async def fill(self) -> None:
        """Give each tenant runs in all states, logs, dead letters and a place on the workers."""
        for tenant in self.tenants.values():
            await _fill(self, tenant)
        everything = [sorted(tenant.runs) for tenant in self.tenants.values()]
        for n in range(3):
            now = time.time()
            runs = [runs[n % len(runs)] for runs in everything]
            record = WorkerRecord(
                worker_id=f"w{n}", state=WorkerState.RUNNING, last_seen_at=now + 3600, last_heartbeat_at=now + 3600,
                tags=["cpu"], slots=8, current_run_ids=runs, current_run_id=runs[n], last_run_id=runs[-n],
                last_run_status="FAILED", last_run_started_at=now, last_run_finished_at=now, host="h", pid=1,
            )  # fmt: skip
            self.workers.append(record.worker_id)
            await self.site.here.gateway.workers.put(record)
        gateway = self.site.here.gateway
        last = (await gateway.connection.js.stream_info(f"KV_{gateway.settings.runs_kv_bucket}")).state.last_seq
        await until(lambda: gateway.index.revision >= last and len(gateway.worker_index.states()) == 3)
        for tenant in self.tenants.values():
            for run_id in tenant.canaries:
                stored = await gateway.runs.get(run_id)
                assert stored is not None
                tenant.canaries[run_id] = stored.revision

    async def changed_canaries(self) -> list[str]:
        """Give the runs that have changed although their own tenant has not touched them."""
        stored = {run_id: revision for tenant in self.tenants.values() for run_id, revision in tenant.canaries.items()}
        found = [(run_id, await self.site.here.gateway.runs.get(run_id)) for run_id in stored]
        return [run_id for run_id, now in found if now is None or now.revision != stored[run_id]]


async def make_world(site: Tenants, folder: Path) -> World:
    """Make three tenants with a key of each role, and the things of none."""
    tenants = {}
    for name in ("red", "green", "blue"):
        tenant = Tenant(f"tenant-{name}-{secrets.token_hex(4)}", f"SECRET{secrets.token_hex(8)}")
        for role in Role:
            client = await site.client(tenant.name, role)
            client.timeout = httpx2.Timeout(60.0)  # of hundreds of wheels at a time each waits for the others
            tenant.clients[role] = client
            key_id = re.split(r"[_.]", client.headers["X-API-Key"])[1]
            tenant.key_ids.add(key_id)
            if role is Role.OPERATOR:
                tenant.operator_keys.add(key_id)
        tenants[name] = tenant
    tenants[NOBODY] = Tenant("~", f"SECRET{secrets.token_hex(8)}")
    document = site.here.listener._app.openapi()
    wheels = [make_wheel(folder, f"package-{n}", "1.0") for n in range(30)]
    world = World(site, tenants, document, wheels)
    await world.fill()
    return world


async def _fill(world: World, tenant: Tenant) -> None:
    gateway = world.site.here.gateway
    client = tenant.clients.get(Role.MEMBER)
    ends = [None, "run", "cancel", RunStatus.COMPLETED, RunStatus.FAILED, RunStatus.FAILED]
    for n, end in enumerate(ends * 2):
        fields = {
            "flow_name": f"flow-{tenant.marker}", "params": {"x": tenant.marker}, "tags": [tenant.marker], "tag": "cpu",
        }  # fmt: skip
        if client is None:
            record = RunRecord(run_id=secrets.token_hex(12), updated_at=time.time(), submitted_at=time.time(), **fields)
            await gateway.runs.create(record)
            run_id = record.run_id
        elif n == 0:
            data = {"flow_name": f"flow-{tenant.marker}", "tag": "cpu", "params": json.dumps({"x": tenant.marker})}
            files = {"workflow": ("f.yaml", f"# {tenant.marker}\n{FLOW}")}
            run_id = (await client.post("/runs/yaml", files=files, data=data)).json()["run_id"]
            tenant.hashes.add((await client.get(f"/runs/{run_id}")).json()["workflow_yaml_sha256"])
        else:
            sent = await client.post("/runs", json={**fields, "idempotency_key": f"k{n}"})
            run_id = sent.json()["run_id"]
        tenant.runs.add(run_id)
        if n >= len(ends):
            tenant.canaries[run_id] = 0
        await _move(world, tenant, run_id, end)
        line = LogLine(time.time(), "t", LogStream.STDOUT, f"log {tenant.marker}")
        await gateway.logs.publish(run_id, LogChunk(1, 1, [line]), "1")


async def _move(world: World, tenant: Tenant, run_id: str, end: Any) -> None:
    if end is None:
        return
    gateway = world.site.here.gateway
    stored = await gateway.runs.get(run_id)
    assert stored is not None
    record = claim(stored.record, worker_id="w1", instance_id="i", job_seq=1)
    record = record.evolve(task_records={"t": {"state": "RUNNING", "output": tenant.marker, "inputs": tenant.marker}})
    if end == "cancel":
        record = request_cancel(record, by=None, reason=tenant.marker)
    elif isinstance(end, RunStatus):
        reason = EndReason.COMPLETED if end is RunStatus.COMPLETED else EndReason.TASK_FAILED
        record = settle(record, end, reason, f"error {tenant.marker}")
    await gateway.runs.update(record, stored.revision)
    if end is RunStatus.FAILED:
        letter = letter_of_run(record, DeadLetterReason.EXECUTION_ERROR, tag="cpu")
        tenant.letters.add(await gateway.letters.publish(letter, run_id))
        if tenant.clients:  # one as earlier versions wrote it
            bare = DeadLetter(reason=letter.reason, tag="cpu", run_id=run_id, error=letter.error)
            tenant.letters.add(await gateway.letters.publish(bare, f"{run_id}-bare"))
