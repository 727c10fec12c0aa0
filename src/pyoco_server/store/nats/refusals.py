"""What it means when NATS is there and does not let us in, and what to do about it."""

import ssl
import time

from pyoco_server.errors import InvalidSetting, StoreRefused
from pyoco_server.settings.nats import NatsTarget
from pyoco_server.store.nats.client import CredentialRefused, FileUnusable, NotEncrypted

_DENIED = "permissions violation"
_EXPIRED, _NOT_YET, _OTHER_HOST = 10, 9, (62, 64)
"""OpenSSL's codes of what is wrong with a certificate."""


def denied_right(error: Exception) -> str | None:
    """Tell which right our credential lacks, in NATS's words; ``None`` if the error is about something else."""
    text = str(error).removeprefix("nats: ").lower()
    return text if _DENIED in text else None


def refusal(error: Exception, target: NatsTarget) -> StoreRefused | None:
    """Tell why NATS does not let us in.

    Args:
        error: What the client raised.
        target: Where it connected, and as whom.

    Returns:
        What to tell; ``None`` if the error says only that NATS is not there, which may pass.
    """
    where = f"NATS at {target.shown_url}"
    if isinstance(error, FileUnusable):
        return StoreRefused(f"cannot connect to {where}: {error}")
    if isinstance(error, CredentialRefused):
        return StoreRefused(f"cannot connect to {where}: {error.message}", hint=error.hint)
    if isinstance(error, NotEncrypted):
        return StoreRefused(
            f"{where} speaks without TLS, but the settings ask for it, so no credential was sent",
            hint="Switch TLS on there, or leave PYOCO_NATS_TLS_CA, PYOCO_NATS_TLS_CERT and tls:// out.",
        )
    if isinstance(error, ssl.SSLCertVerificationError):
        return _untrusted(error, where)
    if isinstance(error, ssl.SSLError):
        return _tls_failed(error, where)
    return _turned_away(str(error).lower(), where, target)


def _turned_away(text: str, where: str, target: NatsTarget) -> StoreRefused | None:
    how = f"the credential in {target.variables}"
    if "authorization violation" in text:
        if not target.variables:
            return StoreRefused(
                f"{where} asks for a credential, and none is given",
                hint=f"Set {target.prefix}USER and {target.prefix}PASSWORD, or {target.prefix}CREDS. If it is the "
                "nats-server of 'pyoco-server up --with-nats': that gives one to its user's commands on its machine.",
            )
        if not _has_expired(target):  # NATS says so only to a connection that stands
            return StoreRefused(f"{where} refuses {how}", hint="Compare it with the users in NATS's configuration.")
        text = "authentication expired"
    if "authentication expired" in text or "authentication revoked" in text:
        ended = "has expired" if "expired" in text else "was revoked"
        return StoreRefused(
            f"{where} refuses {how}: it {ended}",
            hint="Put a new one in its place; a new creds file is read by itself, other settings at the next start.",
        )
    if "connections exceeded" in text:
        return StoreRefused(
            f"{where} refuses the connection: {text.removeprefix('nats: ')}",
            hint="Raise the limit of connections in NATS's configuration, or of the account.",
        )
    return None


def _has_expired(target: NatsTarget) -> bool:
    try:
        until = target.creds_expire_at() if target.creds else None
    except InvalidSetting:  # it is told with the next try, which reads the file again
        return False
    return until is not None and until <= time.time()


def _untrusted(error: ssl.SSLCertVerificationError, where: str) -> StoreRefused:
    message = f"the certificate of {where} is not trusted: {error.verify_message or error.reason}"
    if error.verify_code in (_EXPIRED, _NOT_YET):
        return StoreRefused(message, hint="Renew the server's certificate; or this machine's clock is wrong.")
    if error.verify_code in _OTHER_HOST:
        return StoreRefused(message, hint="Use a name in PYOCO_NATS_URL that stands in the server's certificate.")
    return StoreRefused(message, hint="Set PYOCO_NATS_TLS_CA to the certificate of whoever signed the server's.")


def _tls_failed(error: ssl.SSLError, where: str) -> StoreRefused:
    reason = error.reason or str(error)
    if "CERTIFICATE" in reason or "UNKNOWN_CA" in reason:  # the other side's alert
        return StoreRefused(
            f"{where} wants a client certificate that it trusts: {reason}",
            hint="Set PYOCO_NATS_TLS_CERT and PYOCO_NATS_TLS_KEY to one that is signed by the CA that it trusts.",
        )
    return StoreRefused(f"no encrypted connection to {where}: {reason}", hint="Look at NATS's log.")
