"""How many descriptors (files, sockets) this process may have open."""

import resource

_EVERY = 1 << 20

_given: tuple[int, int] | None = None


def raise_limit() -> int:
    """Raise the limit to what the process may have, and return the new one.

    Many systems start programs with 1,024 for those that use ``select()``, and let them take more. What user code is
    started in gets the limit back that was given: see ``given``.
    """
    global _given  # noqa: PLW0603 - the limit is the process's too
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if _given is None:
        _given = (soft, hard)
    wanted = _EVERY if hard == resource.RLIM_INFINITY else hard
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return limit()
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    except (OSError, ValueError):  # a system may have a lower one that it does not tell; then it stays as it was
        return limit()
    return limit()


def limit() -> int:
    """Return how many this process may have open."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _EVERY if soft == resource.RLIM_INFINITY else soft


def given() -> tuple[int, int]:
    """Return the limits, soft and hard, that this process was started with."""
    return _given or resource.getrlimit(resource.RLIMIT_NOFILE)
