"""The flow that a run runs: its text, and its graph."""

import re
from typing import Any

import pydantic_core
from fastapi import APIRouter, Request, Response
from fastapi.responses import PlainTextResponse

from pyoco_server.errors import FlowNotStored, InvalidInput, RunNotFound, StoreUnavailable, TooLarge
from pyoco_server.gateway.access.caller import Who
from pyoco_server.gateway.access.client import Client
from pyoco_server.gateway.gateway import Gateway, Here
from pyoco_server.gateway.http.answers import CHECKS, refusals
from pyoco_server.gateway.routes.runs import read_snapshot
from pyoco_server.model.flow.drawing import loose_graph

router = APIRouter(tags=["runs"])

_SHA256 = re.compile(r"[0-9a-f]{64}")


@router.get(
    "/runs/{run_id}/yaml",
    responses=refusals(RunNotFound, FlowNotStored, StoreUnavailable),
    response_class=PlainTextResponse,
)
async def get_yaml(here: Here, who: Who, run_id: str) -> PlainTextResponse:
    """Give the flow.yaml that the run was submitted with, as it was."""
    text = await _text(here, await read_snapshot(here, who, run_id, records=False))
    if text is None:
        raise FlowNotStored(f"run {run_id} has no flow.yaml in the store")
    return PlainTextResponse(text, headers={"X-Content-Type-Options": "nosniff"})


@router.get("/runs/{run_id}/graph", responses=refusals(RunNotFound, StoreUnavailable, *CHECKS))
async def get_graph(here: Here, who: Who, run_id: str, request: Request) -> Response:
    """Give the graph of the run's flow; of a flow that a worker brought along the tasks alone."""
    snapshot = await read_snapshot(here, who, run_id, records=False)
    drawn = await _graph(here, snapshot, Client(request))
    source = "flow.yaml" if drawn is not None else None
    if drawn is None:
        tasks = snapshot.get("tasks")
        drawn = pydantic_core.to_json(loose_graph(list(tasks) if isinstance(tasks, dict) else []).as_json())
    head = pydantic_core.to_json({"run_id": run_id, "source": source})
    return Response(head[:-1] + b"," + drawn[1:], media_type="application/json")  # two objects become one


async def _graph(here: Gateway, snapshot: dict[str, Any], client: Client) -> bytes | None:
    text = await _text(here, snapshot)
    if text is None:
        return None
    try:
        return await here.checker.graph(text, client)
    except (InvalidInput, TooLarge):  # another program stored it, or a version that took more
        return None


async def _text(here: Gateway, snapshot: dict[str, Any]) -> bytes | None:
    sha256 = snapshot.get("workflow_yaml_sha256")
    return await here.flows.get(sha256) if isinstance(sha256, str) and _SHA256.fullmatch(sha256) else None
