"""What the tests beside the existing system use."""

import pytest

from .existing import Existing, installed


@pytest.fixture(scope="session")
def existing() -> Existing:
    """The existing pyoco-server 0.5.1, installed."""
    return installed()
