"""Who sent a request, and from where: as it is kept beside a change."""

from fastapi import Request

from pyoco_server.model.access import Caller
from pyoco_server.model.provenance import Actor, Source
from pyoco_server.model.text.clean import clean_text

_LONGEST_HEADER = 500


def actor_of(who: Caller) -> Actor:
    """Give who sent a request."""
    return Actor(tenant_id=who.tenant_id, api_key_id=who.key_id)


def source_of(request: Request) -> Source:
    """Give from where a request came."""
    headers = request.headers

    def short(name: str) -> str | None:
        text = headers.get(name)
        return None if text is None else clean_text(text, _LONGEST_HEADER)

    return Source(
        remote_addr=request.client.host if request.client else None,
        x_forwarded_for=short("x-forwarded-for"),
        x_real_ip=short("x-real-ip"),
        user_agent=short("user-agent"),
        host=short("host"),
        scheme=request.scope.get("scheme"),
    )
