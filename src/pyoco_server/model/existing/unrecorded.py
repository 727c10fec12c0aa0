"""Jobs that another program published: the record that is made of one, and what a record must not contradict.

Who may publish on the queue may have anything run, as in the existing system: the job says whose the run is.
"""

import time

from pyoco_server.errors import InvalidInput
from pyoco_server.model.access import check_tenant
from pyoco_server.model.job import Job
from pyoco_server.model.run import EndReason, RunRecord, RunStatus, settle
from pyoco_server.model.text.clean import clean_text

_MOST_TAGS = 64
_LONGEST_NAME = 256


def record_of(job: Job, tag: str, max_bytes: int) -> RunRecord:
    """Return the record of a job that has none: one that waits, or one that has ended because it cannot be run.

    Args:
        job: The job.
        tag: The queue that it lay on, whatever it says itself.
        max_bytes: How large a first record may be.

    Raises:
        InvalidInput: it names what cannot be a tenant, so nobody may see its run.
    """
    if job.tenant_id is not None:
        check_tenant(job.tenant_id)
    now = time.time()
    bare = RunRecord(
        run_id=job.run_id, flow_name=clean_text(job.flow_name, _LONGEST_NAME), tag=tag, tags=[tag],
        submitted_at=job.submitted_at or now, heartbeat_at=now, updated_at=now,
        tenant_id=job.tenant_id, api_key_id=job.api_key_id,
    )  # fmt: skip
    try:
        sha256 = job.flow_sha256
        if len(job.flow_name) > _LONGEST_NAME:
            raise InvalidInput(f"not a job: flow_name: it has {len(job.flow_name)} characters, not {_LONGEST_NAME}")
        if len(job.tags or ()) > _MOST_TAGS:
            raise InvalidInput(f"not a job: tags: {len(job.tags or ())} tags, not {_MOST_TAGS}")
        record = bare.evolve(
            params=job.params or {}, tags=job.tags or [tag], workflow_yaml_sha256=sha256,
            workflow_yaml_bytes=len(job.workflow_yaml.encode()) if job.workflow_yaml else job.workflow_yaml_bytes,
        )  # fmt: skip
        size = len(record.to_json())
    except InvalidInput as error:
        return _refused(bare, error.message)
    except (ValueError, RecursionError):  # half a character, or too deep to be written
        return _refused(bare, "not a job: it nests too deeply, or holds text that is none")
    if size > max_bytes:
        return _refused(bare, f"the run's params take {size} bytes with its record; {max_bytes} are accepted")
    return record


def check_agrees(job: Job, record: RunRecord) -> None:
    """Check that a job of another program asks for what the record of its run says.

    Raises:
        InvalidInput: it asks for another flow or other params: somebody else has used the run_id.
    """
    sha256 = job.flow_sha256
    if job.flow_name != record.flow_name:
        raise _other("flow_name")
    if job.params and record.params and job.params != record.params:
        raise _other("params")
    if sha256 is not None and record.workflow_yaml_sha256 not in (None, sha256):
        raise _other("workflow_yaml")


def regained(record: RunRecord, job: Job, num_delivered: int) -> RunRecord:
    """Return the record of a run that a worker of the existing system had, with what that has left out of it.

    Args:
        record: As such a worker wrote it; any other one comes back as it is.
        job: Its job.
        num_delivered: How often it was delivered: so often, but for this time, the run has begun.
    """
    if record.attempt or record.instance_id is not None or record.status is RunStatus.PENDING:
        return record
    return record.evolve(
        flow_name=job.flow_name,
        params=record.params or job.params or {},
        submitted_at=record.submitted_at or job.submitted_at,
        attempt=max(1, num_delivered - 1),
        tags=record.tags or job.tags or [record.tag],
    )


def _other(field: str) -> InvalidInput:
    return InvalidInput(f"not the job of its run: {field}: the run's record says something else")


def _refused(record: RunRecord, error: str) -> RunRecord:
    return settle(record, RunStatus.FAILED, EndReason.INVALID_JOB, error)
