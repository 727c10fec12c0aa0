"""Addresses of machines."""

import ipaddress


def is_loopback(address: str) -> bool:
    """Tell whether an IP address is reached from its own machine alone; what is no IP address is not."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return (mapped or found).is_loopback
