"""Failed keys, by address: a limit on how many are looked at, and one line of log a minute."""

import ipaddress
import math
from collections import OrderedDict
from dataclasses import dataclass

import structlog

from pyoco_server.gateway.reports import Reports
from pyoco_server.model.apikey import Refusal

log = structlog.get_logger(__name__)

_EVERY_SEC = 3.0
"""One bad key in so many seconds is looked at."""
_BURST_SEC = 20 * _EVERY_SEC
"""And this much of not having failed is saved up."""
_MOST = 4096
_IPV6_PREFIX = 64


@dataclass
class _Address:
    saved: float
    at: float


class FailedKeys:
    """Counts failures per address. A key of 256 random bits is not found by trying: this is for CPU, NATS and the log.

    Of the addresses that have failed the last ones are remembered. Times are monotonic seconds.
    """

    def __init__(self) -> None:
        self._addresses: OrderedDict[str, _Address] = OrderedDict()
        self._reports = Reports()

    def wait(self, address: str, now: float) -> int:
        """Give the whole seconds until a bad key from this address is looked at again; 0: now."""
        found = self._addresses.get(address)
        if found is None:
            return 0
        _refill(found, now)
        return math.ceil(max(0.0, _EVERY_SEC - found.saved))

    def failed(self, address: str, reason: Refusal, key_id: str | None, now: float) -> None:
        """Count a failure.

        Args:
            address: From where.
            reason: What was wrong.
            key_id: The id of the key, where such a key exists.
            now: Now.
        """
        found = self._addresses.get(address)
        if found is None:
            found = self._addresses[address] = _Address(_BURST_SEC, now)
            if len(self._addresses) > _MOST:
                self._addresses.popitem(last=False)
        self._addresses.move_to_end(address)
        _refill(found, now)
        found.saved = max(0.0, found.saved - _EVERY_SEC)
        if times := self._reports.due(address, now):
            log.warning("an api key was refused", address=address, reason=reason.value, key_id=key_id, attempts=times)


def _refill(address: _Address, now: float) -> None:
    address.saved = min(_BURST_SEC, address.saved + now - address.at)
    address.at = now


def source(host: str | None) -> str:
    """Give the address that failures are counted under: of IPv6 the network of one customer.

    Args:
        host: The peer of the connection; what a proxy says of its own clients is anybody's word.
    """
    try:
        address = ipaddress.ip_address((host or "").partition("%")[0])
    except ValueError:
        return host or "unknown"
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((address, _IPV6_PREFIX), strict=False))
