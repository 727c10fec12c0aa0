"""What is wrong, as far as the gateway can know it."""

import time
from typing import Annotated, Any

from fastapi import APIRouter, Header

from pyoco_server import __version__
from pyoco_server.errors import StoreUnavailable
from pyoco_server.gateway.access.caller import Who
from pyoco_server.gateway.gateway import Here
from pyoco_server.gateway.http.words import Lang
from pyoco_server.gateway.monitoring.doctor import diagnose
from pyoco_server.gateway.monitoring.wheel_findings import find_wheel_troubles
from pyoco_server.model.findings.finding import worst_first
from pyoco_server.model.findings.texts import described
from pyoco_server.model.text.languages import preferred
from pyoco_server.model.worker import WorkerState

router = APIRouter(tags=["system"])


@router.get("/doctor")
async def doctor(
    here: Here, who: Who, lang: Lang = None, accept_language: Annotated[str, Header()] = ""
) -> dict[str, Any]:
    """Say what is wrong and what to do, to all but operators of their tenant's alone; 200 also when NATS is away."""
    findings = worst_first([*await diagnose(here, who), *find_wheel_troubles(here.worker_index, who)])
    states = [state for _, state in here.worker_index.states()]
    try:
        nats = here.connection.server_version
    except StoreUnavailable:
        nats = None
    now = time.time()
    return {
        "version": __version__,
        "now": now,
        "authentication": here.settings.http_auth_mode,
        "scope": "everything" if who.operates else "tenant",
        "nats_server": nats,
        "workers": {state.value: states.count(state) for state in WorkerState},
        "findings": [described(finding, lang or preferred(accept_language), now) for finding in findings],
    }
