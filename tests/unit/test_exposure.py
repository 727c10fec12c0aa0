"""Where an embedded NATS may listen without a word."""

import pytest

from pyoco_server.embedded.listener import check_nats_exposure
from pyoco_server.errors import CommandFailed


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "::1", "localhost"])
def test_this_machine_alone(host: str) -> None:
    check_nats_exposure(host, insecure=False)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "2001:db8::1"])
def test_others_too(host: str) -> None:
    with pytest.raises(CommandFailed, match="lets everybody in") as refused:
        check_nats_exposure(host, insecure=False)
    assert "--insecure" in refused.value.hint
    check_nats_exposure(host, insecure=True)


@pytest.mark.parametrize("host", ["", "no such name", "x" * 70])
def test_what_is_no_address(host: str) -> None:
    for insecure in (False, True):
        with pytest.raises(CommandFailed, match="cannot listen"):
            check_nats_exposure(host, insecure=insecure)
