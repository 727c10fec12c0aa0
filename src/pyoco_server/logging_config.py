"""What sets up logging, under the name by which existing programs import it."""

from pyoco_server.process.logs import configure_logging

__all__ = ["configure_logging"]
