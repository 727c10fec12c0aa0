"""A job: the message on the queue that gives the right to run.

Workers of ours read the run's record and the stored flow; a worker of the existing system knows only what the job
says. So a job carries all that such a worker needs. One that is too large for that, or whose run such a worker would
run wrongly, is sealed: in a form without ``run_id``, which other workers refuse and put into the dead letters.
"""

import hashlib
from typing import Annotated, Any

import pydantic_core
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError
from typing_extensions import Self

from pyoco_server.errors import InvalidInput
from pyoco_server.model.run import RunRecord

ALWAYS_WHOLE = 16 * 1024
"""Bytes of a message that is not sealed for its size, whoever serves its tag."""
_OURS = "workers of this system"
_SEAL = b'{"only_for":'
_FOR_WORKERS = ("params", "tags", "workflow_yaml", "workflow_yaml_bytes")
"""What workers of ours read elsewhere."""


class Job(BaseModel):
    """What a worker needs to find the run and its flow.

    Programs written for the existing system publish jobs too, some of them without a record.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    run_id: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_=-]{1,128}$")]
    flow_name: Annotated[str, StringConstraints(min_length=1)]
    tag: str | None = None
    tags: list[str] | None = None
    params: dict[str, Any] | None = Field(default_factory=dict)
    submitted_at: float | None = None
    tenant_id: str | None = None
    api_key_id: str | None = None
    recorded: bool = False
    """Whether its record was made before it, as our gateways do: if there is none, there is nothing to run."""
    workflow_yaml_sha256: str | None = None
    workflow_yaml_bytes: int | None = None
    workflow_yaml: str | None = None
    only_for: str | None = Field(default=None, exclude=True)
    """Why it is sealed."""

    @classmethod
    def of(cls, record: RunRecord, workflow_yaml: str | None = None) -> Self:
        """Return the job of a run.

        Args:
            record: The run.
            workflow_yaml: The text of its flow, if it has one; without it the job is sealed.
        """
        why = only_for(record)
        if why is None and record.workflow_yaml_sha256 is not None and workflow_yaml is None:
            why = f"{_OURS}, which read its flow ({record.workflow_yaml_bytes} bytes) from the store"
        return cls(
            run_id=record.run_id,
            flow_name=record.flow_name,
            tag=record.tag,
            tags=record.tags,
            params=record.params,
            submitted_at=record.submitted_at,
            tenant_id=record.tenant_id,
            api_key_id=record.api_key_id,
            recorded=True,
            workflow_yaml_sha256=record.workflow_yaml_sha256,
            workflow_yaml_bytes=record.workflow_yaml_bytes,
            workflow_yaml=workflow_yaml,
            only_for=why,
        )

    def to_json(self, most: int | None = None) -> bytes:
        """Return the message body.

        Args:
            most: Bytes that it may have; a larger one is sealed.
        """
        why = self.only_for
        if why is None:
            whole = self.model_dump_json(exclude_none=True).encode()
            if most is None or len(whole) <= most:
                return whole
            why = f"{_OURS}, which read its params and flow from the store: the job would have {len(whole)} bytes"
        short = self.model_dump(mode="json", exclude_none=True, exclude=set(_FOR_WORKERS))
        return pydantic_core.to_json({"only_for": why, "job": short})

    @classmethod
    def from_json(cls, raw: bytes) -> Self:
        """Read a message body, sealed or not.

        Raises:
            InvalidInput: not a job; the message says which field is wrong.
        """
        try:
            if raw.startswith(_SEAL):
                sealed = _Sealed.model_validate_json(raw)
                return cls.model_validate({**sealed.job, "only_for": sealed.only_for})
            return cls.model_validate_json(raw)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False, include_context=False)[0]
            where = ".".join(str(part) for part in first["loc"]) or "the message"
            raise InvalidInput(f"not a job: {where}: {first['msg']}") from None

    @property
    def flow_sha256(self) -> str | None:
        """The hash of the flow that it asks for; ``None`` for one of the worker's resolver.

        Raises:
            InvalidInput: it names another hash than its text has.
        """
        if self.workflow_yaml is None:
            return self.workflow_yaml_sha256
        found = hashlib.sha256(self.workflow_yaml.encode("utf-8", "surrogatepass")).hexdigest()
        if self.workflow_yaml_sha256 not in (None, found):
            raise InvalidInput("not a job: workflow_yaml_sha256: it is not the hash of workflow_yaml")
        return found


class _Sealed(BaseModel):
    only_for: str
    job: dict[str, Any]


def only_for(record: RunRecord) -> str | None:
    """Say who alone may run a run, and why; ``None`` if a worker of the existing system would run it rightly."""
    asked = [name for name in ("timeout_sec", "max_attempts") if getattr(record, name) is not None]
    why = [f"the run has {' and '.join(asked)}"] if asked else []
    why += [record.own_workers_only] if record.own_workers_only else []
    return f"{_OURS}: {'; '.join(why)}" if why else None


def run_id_in(raw: bytes) -> str | None:
    """Return the run that a message names; ``None`` if it is no job."""
    try:
        message = pydantic_core.from_json(raw)
        run_id = message.get("job", message)["run_id"]
    except (ValueError, TypeError, KeyError, AttributeError):  # the worker that gets it says so
        return None
    return run_id if isinstance(run_id, str) else None
