"""The address that a client is counted under."""

import ipaddress

_IPV6_PREFIX = 64


def source(host: str | None) -> str:
    """Return the address that a client is counted under: for IPv6, the network of one customer.

    Args:
        host: The peer of the connection. Proxy headers do not count: clients can forge them.
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
