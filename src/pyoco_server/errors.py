"""The error tree: what can go wrong, as HTTP status, CLI exit code and a hint, in one place.

::

    PyocoError
    ├── InvalidInput            422   1   the request or the file cannot be accepted as it is
    │   ├── InvalidFlow               1   a flow.yaml that cannot be run
    │   ├── InvalidSetting            1   an environment variable, .env line or flag
    │   └── HeaderRepeated            1   a header that decides something was sent with different values (400, 401, 422)
    ├── TooLarge                413   1
    ├── KeyRequired             401   4   a request without an API key, where one is needed
    ├── InvalidKey              403   4   a key that is none, unknown, revoked, expired: one text for all
    ├── RoleTooLow              403   4   a good key that does not allow this
    ├── TooManyFailedKeys       429   4   bad keys keep coming from the caller's address
    ├── ForeignOrigin           403   4   a browser sends a change for another site's page
    ├── ForeignHost             403   4   the request was sent to a name that is not the server's
    ├── MethodNotAllowed        405   1   the path is there, and takes other methods
    ├── KeyNotFound                   2   no API key has this id
    ├── RunNotFound             404   5
    ├── WorkerNotFound          404   5
    ├── WorkerGone              409   6   a worker that is stopped or disconnected cannot be asked for anything
    ├── DeadLetterNotFound      404   5
    ├── WheelNotFound           404   5
    ├── WheelVersionConflict    409   6   the same or a newer version of the package is stored
    ├── WheelDamaged            500   1   what the store gives is not what was uploaded
    ├── NotReplayable           409   6   a dead letter or a run that does not hold what a new run needs
    ├── TooManyStreams          503   7   the gateway serves as many open logs as it may
    ├── TooManyChecks           503   7   the gateway has as many texts to check as it takes, or of this caller
    ├── CheckUnavailable        503   7   a text could not be checked, or not in time
    ├── ClientGone              499       whoever sent the request has hung up; nobody reads the answer
    ├── StoreUnavailable        503   7   NATS cannot be reached, or did not answer in time
    │   ├── StoreRefused        503   4   NATS is there and does not let us in
    │   ├── RightMissing        503   7   NATS lets us in, but not do this
    │   └── StoreFull           507   1   there is no room for more; what is stored is safe
    ├── RevisionConflict        409   6   somebody else wrote the record first
    ├── KeyReused               409   6   an idempotency key came back with another request
    ├── DamagedBackup             1   an archive that is not what was written
    └── CommandFailed             1       a command cannot go on (port taken, file missing, …)
"""

from collections.abc import Iterable


class PyocoError(Exception):
    """Root of every error that pyoco-server raises on purpose.

    Args:
        message: One sentence for a person: what was wrong, and where.
        hint: What to do instead; shown beside the message.
    """

    code = "internal_error"
    http_status = 500
    exit_code = 1
    default_hint = ""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint or self.default_hint


class InvalidInput(PyocoError):
    """The request cannot be accepted as it is."""

    code = "invalid_input"
    http_status = 422


class InvalidFlow(InvalidInput):
    """A flow.yaml that cannot be run: unreadable, unknown keys, an unknown task in the graph, …

    Args:
        message: What is wrong.
        line: 1-based line in the file, when it is known.
        key: Dotted path of the key, such as ``tasks.add_one.callable``.
        column: 1-based column in that line, when it is known.
    """

    code = "invalid_flow"

    def __init__(
        self,
        message: str,
        *,
        hint: str = "",
        line: int | None = None,
        key: str | None = None,
        column: int | None = None,
    ) -> None:
        parts = (f"line {line}" if line else "", f"column {column}" if column else "", key or "")
        where = ", ".join(part for part in parts if part)
        super().__init__(f"{where}: {message}" if where else message, hint=hint)
        self.line = line
        self.key = key
        self.column = column


class InvalidSetting(InvalidInput):
    """An environment variable, a line of .env or a flag that cannot be read."""

    code = "invalid_setting"


class HeaderRepeated(InvalidInput):
    """A header that decides something was sent more than once, with different values.

    Args:
        header: Its name.
    """

    code = "header_repeated"
    default_hint = "Send it once. If a proxy adds it, let it replace what the client sent."

    def __init__(self, header: str) -> None:
        super().__init__(f"the header {header} was sent more than once, with different values")


class TooLarge(PyocoError):
    """The request is larger than the server accepts."""

    code = "too_large"
    http_status = 413


class KeyRequired(PyocoError):
    """The request carries no API key."""

    code = "api_key_required"
    http_status = 401
    exit_code = 4

    def __init__(self, header: str) -> None:
        super().__init__(
            "api key required", hint=f"Send a key in the header {header}; pyoco-client takes it from PYOCO_API_KEY."
        )


class InvalidKey(PyocoError):
    """The key admits nobody. What is wrong with it is in the server's log; the caller is told one text for all."""

    code = "invalid_api_key"
    http_status = 403
    exit_code = 4
    default_hint = (
        "It may be mistyped, revoked or expired. An administrator makes one with: pyoco-server-admin api-key create"
    )

    def __init__(self) -> None:
        super().__init__("invalid api key")


class RoleTooLow(PyocoError):
    """The key is good, and does not allow this.

    Args:
        role: What the key has.
        needed: What it would take.
        what: What was to be done.
    """

    code = "role_too_low"
    http_status = 403
    exit_code = 4

    def __init__(self, role: str, needed: str, what: str = "this") -> None:
        super().__init__(
            f"{what} needs the role {needed}; the key has the role {role}",
            hint=f"Use a key made with: pyoco-server-admin api-key create --role {needed}",
        )


class TooManyFailedKeys(PyocoError):
    """Bad keys keep coming from this address; good ones still pass.

    Args:
        retry_after_sec: Seconds until a bad one is looked at again.
    """

    code = "too_many_failed_keys"
    http_status = 429
    exit_code = 4

    def __init__(self, retry_after_sec: int) -> None:
        super().__init__(
            "too many invalid api keys from this address",
            hint=f"Correct the key; the next one is looked at in {retry_after_sec} s. Good keys are not held up.",
        )
        self.retry_after_sec = retry_after_sec


class ForeignOrigin(PyocoError):
    """A browser sends this for another site's page.

    Args:
        origin: The page's origin, where the browser tells it.
    """

    code = "foreign_origin"
    http_status = 403
    exit_code = 4
    default_hint = (
        "Is there a proxy in front? Let it pass the header Host on, or name the page's origin in "
        "PYOCO_HTTP_ALLOWED_ORIGINS."
    )

    def __init__(self, origin: str | None) -> None:
        super().__init__(f"pages of {origin[:200] if origin else 'other sites'} may not change anything here")


class ForeignHost(PyocoError):
    """The request was sent to a name that is not the server's: so other sites' pages get at one without keys."""

    code = "foreign_host"
    http_status = 403
    exit_code = 4
    default_hint = (
        "Use its address or localhost. If a proxy passes that name on, name it in PYOCO_HTTP_ALLOWED_HOSTS; with API "
        "keys on it is not asked for."
    )

    def __init__(self, host: str) -> None:
        super().__init__(f"this server is not known as {host[:200]!r}")


class MethodNotAllowed(PyocoError):
    """The path is there, and takes other methods.

    Args:
        allowed: Those that it takes.
    """

    code = "method_not_allowed"
    http_status = 405

    def __init__(self, allowed: Iterable[str]) -> None:
        self.allowed = sorted(allowed)
        super().__init__("Method Not Allowed", hint=f"This path takes {', '.join(self.allowed)}.")


class KeyNotFound(PyocoError):
    """No API key has this id."""

    code = "api_key_not_found"
    http_status = 404
    exit_code = 2
    default_hint = "List the keys with: pyoco-server-admin api-key list"


class RunNotFound(PyocoError):
    """No run has this id (or it belongs to another tenant)."""

    code = "run_not_found"
    http_status = 404
    exit_code = 5
    default_hint = "List the runs with: pyoco-client list"

    def __init__(self, message: str = "run not found", *, hint: str = "") -> None:
        super().__init__(message, hint=hint)


class FlowNotStored(PyocoError):
    """The run has no flow.yaml, or its text is not in the store any more."""

    code = "flow_not_stored"
    http_status = 404
    exit_code = 5
    default_hint = "A run that was submitted by its flow's name alone runs what its worker's resolver gives."


class WorkerNotFound(PyocoError):
    """No worker has this id."""

    code = "worker_not_found"
    http_status = 404
    exit_code = 5
    default_hint = "List the workers with: pyoco-client workers --scope all"


class WorkerGone(PyocoError):
    """The worker is stopped or disconnected: nothing can be asked of it."""

    code = "worker_gone"
    http_status = 409
    exit_code = 6
    default_hint = "Only a worker that is there can be drained. List them with: pyoco-client workers"


class DeadLetterNotFound(PyocoError):
    """No dead letter has this id (any more)."""

    code = "dead_letter_not_found"
    http_status = 404
    exit_code = 5
    default_hint = "It may have been replayed or deleted. List the dead letters with: pyoco-client dlq list"


class WheelNotFound(PyocoError):
    """No wheel has this name."""

    code = "wheel_not_found"
    http_status = 404
    exit_code = 5
    default_hint = "List the wheels with: pyoco-client wheels"


class WheelVersionConflict(PyocoError):
    """The same or a newer version of the package is stored; the message names the newest."""

    code = "wheel_version_conflict"
    http_status = 409
    exit_code = 6


class WheelDamaged(PyocoError):
    """The bytes in the store are not those that were uploaded."""

    code = "wheel_damaged"
    http_status = 500
    default_hint = "Delete the wheel and upload it again: pyoco-client wheel-delete --name FILE"


class NotReplayable(PyocoError):
    """A dead letter or a run that does not hold what a new run needs; the message says what is missing."""

    code = "not_replayable"
    http_status = 409
    exit_code = 6
    default_hint = "Submit the run anew."


class TooManyStreams(PyocoError):
    """This gateway sends as many logs, or has as many listeners, as it may."""

    code = "too_many_streams"
    http_status = 503
    exit_code = 7
    default_hint = "Close one, or try again in a moment."


class TooManyChecks(PyocoError):
    """As many flows and bodies wait to be checked as may; of this caller, or of all."""

    code = "too_many_checks"
    http_status = 503
    exit_code = 7
    default_hint = "Nothing was submitted. Try again in a moment, with fewer submissions at a time."


class CheckUnavailable(PyocoError):
    """A flow or body could not be checked, or not in time; nothing is wrong with it as far as is known."""

    code = "check_unavailable"
    http_status = 503
    exit_code = 7
    default_hint = "Nothing was submitted. Try again in a moment."


class ClientGone(PyocoError):
    """Whoever sent the request has hung up before it was answered."""

    code = "client_gone"
    http_status = 499


class StoreUnavailable(PyocoError):
    """NATS cannot be reached, or did not answer in time. Nothing is lost; try again."""

    code = "nats_unavailable"
    http_status = 503
    exit_code = 7
    default_hint = "The server reconnects by itself; try again in a moment. GET /ready tells the state."


class StoreRefused(StoreUnavailable):
    """NATS is there and does not let us in: the credential, a certificate, or TLS is wrong. Waiting does not help."""

    code = "nats_refused"
    exit_code = 4
    default_hint = "Correct the PYOCO_NATS_ settings; GET /ready tells the state."


class RightMissing(StoreUnavailable):
    """Our credential has no right to this; the message holds NATS's own words."""

    code = "nats_denied"
    default_hint = "Give this user the right in NATS's configuration, or leave it to one that has it."


class StoreFull(StoreUnavailable):
    """There is no room for more, or hardly any. What is stored is safe, and everything else works."""

    code = "store_full"
    http_status = 507
    exit_code = 1
    default_hint = (
        "Keep runs for less time or fewer of them (PYOCO_RUN_RETENTION_SEC, PYOCO_RUN_RETENTION_MAX_RUNS), delete "
        "wheels, or give NATS more room; GET /ready shows what takes it. Submissions are then taken by themselves."
    )


class RevisionConflict(PyocoError):
    """The record changed since it was read: somebody else wrote first."""

    code = "conflict"
    http_status = 409
    exit_code = 6


class KeyReused(PyocoError):
    """An idempotency key came back with another request than its first one."""

    code = "idempotency_key_reused"
    http_status = 409
    exit_code = 6
    default_hint = "Use a new key for a new run; repeat a request unchanged (flow, params, tag, tags, limits)."


class DamagedBackup(PyocoError):
    """A backup's file is not what was written; the message names the part."""

    code = "backup_damaged"
    default_hint = "Nothing was changed. Restore another backup."


class CommandFailed(PyocoError):
    """A command cannot go on; the message says why in one sentence."""

    code = "command_failed"
