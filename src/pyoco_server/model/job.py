"""A job: the message on the queue that gives the right to run."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError
from typing_extensions import Self

from pyoco_server.errors import InvalidInput
from pyoco_server.model.run import RunRecord


class Job(BaseModel):
    """What a worker needs to find the run and its flow.

    Programs written for the existing system publish jobs with the flow's text inline in ``workflow_yaml``;
    our gateway stores the text once and names it by ``workflow_yaml_sha256``.
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
    workflow_yaml: str | None = None
    workflow_yaml_sha256: str | None = None
    workflow_yaml_bytes: int | None = None

    @classmethod
    def of(cls, record: RunRecord) -> Self:
        """Give the job of a run."""
        return cls(
            run_id=record.run_id,
            flow_name=record.flow_name,
            tag=record.tag,
            submitted_at=record.submitted_at,
            tenant_id=record.tenant_id,
            api_key_id=record.api_key_id,
            workflow_yaml_sha256=record.workflow_yaml_sha256,
        )

    def to_json(self) -> bytes:
        """Give the message body."""
        return self.model_dump_json(exclude_none=True).encode()

    @classmethod
    def from_json(cls, raw: bytes) -> Self:
        """Read a message body.

        Raises:
            InvalidInput: not a job; the message says which field is wrong.
        """
        try:
            return cls.model_validate_json(raw)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"]) or "the message"
            raise InvalidInput(f"not a job: {where}: {first['msg']}") from None
