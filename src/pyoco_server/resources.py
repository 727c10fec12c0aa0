"""What makes the streams, under the name by which existing programs import it."""

from pyoco_server.store.topology import ensure_resources

__all__ = ["ensure_resources"]
