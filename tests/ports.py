"""Ports for servers that are killed, and started again on the same one."""

import random
import socket

_LOWEST, _HIGHEST = 10_000, 30_000
"""Below the ports that Linux hands out itself: while a server is away its port would be given to somebody's client."""
_TRIES = 100


def free_port() -> int:
    """Give a port of this machine's loopback that nobody has now."""
    for _ in range(_TRIES):
        port = random.SystemRandom().randint(_LOWEST, _HIGHEST)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError(f"none of {_TRIES} ports is free")
