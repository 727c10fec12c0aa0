"""The ASGI app: routes, errors, and the start and stop of what stands behind them."""

import contextlib
from collections.abc import AsyncIterator
from typing import Any

from fastapi import FastAPI

from pyoco_server import __version__
from pyoco_server.gateway import problems
from pyoco_server.gateway.access.guard import Guard
from pyoco_server.gateway.audit.middleware import Auditing
from pyoco_server.gateway.gateway import Gateway
from pyoco_server.gateway.http import connections
from pyoco_server.gateway.http.body_limit import BodyLimit
from pyoco_server.gateway.http.description import DescribedApp
from pyoco_server.gateway.http.head import Head
from pyoco_server.gateway.http.level import Level
from pyoco_server.gateway.http.prefix import Prefix, own_parts
from pyoco_server.gateway.http.single_headers import SingleHeaders
from pyoco_server.gateway.monitoring.metrics import Metrics
from pyoco_server.gateway.monitoring.request_metrics import HttpMetrics
from pyoco_server.gateway.routes import (
    audit,
    dashboard,
    deadletters,
    doctor,
    events,
    flows,
    logs,
    metrics,
    overview,
    runs,
    submissions,
    system,
    watch,
    wheels,
    whoami,
    why,
    workers,
)
from pyoco_server.settings.environment import Settings

_ROUTES = (
    system, overview, doctor, metrics, submissions, watch, why, logs, events, flows, runs, deadletters, workers, wheels,
    whoami, audit, dashboard,
)  # fmt: skip


def create_app(settings: Settings | None = None) -> FastAPI:
    """Make the gateway. It starts whether or not NATS is there, and is well as soon as NATS is.

    Args:
        settings: The settings; read from the environment when not given.

    Raises:
        InvalidSetting: the environment cannot be read, or the root path is one of the server's own paths.
    """
    settings = settings or Settings.from_env()
    # No /docs: that page runs scripts of another site beside the key that our own page may hold.
    app = DescribedApp(
        settings,
        title="pyoco-server",
        version=__version__,
        lifespan=_lifespan,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.settings = settings
    app.state.metrics = Metrics()
    problems.install(app)
    for module in _ROUTES:
        app.include_router(module.router)
    dashboard.mount_static(app)
    app.add_middleware(
        BodyLimit,
        largest=max(settings.max_run_snapshot_bytes, settings.workflow_yaml_max_bytes),
        files={"/wheels": settings.wheel_max_bytes},
    )
    app.add_middleware(Guard, settings=settings)
    app.add_middleware(Auditing)
    app.add_middleware(Prefix, settings=settings, own=own_parts(app, settings))
    app.add_middleware(SingleHeaders, settings=settings)
    app.add_middleware(HttpMetrics, metrics=app.state.metrics)  # it sees all answers
    app.add_middleware(Level)
    app.add_middleware(Head)  # the last one is the outermost: to all others it is a GET
    return app


@contextlib.asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
    gateway = Gateway(app.state.settings, app.state.metrics)
    app.state.gateway = gateway
    await gateway.start()
    await gateway.wait_made()
    try:
        yield {connections.STATE: gateway.connections}  # the web server hands it to its connections
    finally:
        await gateway.stop()
