"""The HTTP client under the name by which existing programs import it."""

from pyoco_server.client.http import PyocoHttpClient

__all__ = ["PyocoHttpClient"]
