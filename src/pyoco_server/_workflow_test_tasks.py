"""The two tasks that the tutorial's flow.yaml names."""


def add_one(x: int = 0) -> int:
    """Return ``x + 1``."""
    return int(x) + 1


def to_text(add_one: int) -> str:
    """Return ``v=<n>`` for the result of ``add_one``."""
    return f"v={int(add_one)}"
