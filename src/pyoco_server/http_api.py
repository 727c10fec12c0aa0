"""The ASGI app factory under the name that existing deployments use.

``uvicorn --factory pyoco_server.http_api:create_app``
"""

from fastapi import FastAPI

from pyoco_server.gateway import app
from pyoco_server.process import descriptors
from pyoco_server.process.logs import configure_logging
from pyoco_server.process.memory import settle_memory
from pyoco_server.settings.environment import Settings
from pyoco_server.settings.secrecy import hide, keep_secrets


def create_app() -> FastAPI:
    """Make the gateway from the environment."""
    hide()
    settings = Settings.from_env()
    keep_secrets(settings)
    configure_logging(service="pyoco-server:http", settings=settings)
    descriptors.raise_limit()
    made = app.create_app(settings)
    settle_memory()
    return made
