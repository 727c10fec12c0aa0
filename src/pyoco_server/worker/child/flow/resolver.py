"""What gives flows by their names."""

from collections.abc import Callable

from pyoco.core.models import Flow

Resolver = Callable[[str], Flow]
