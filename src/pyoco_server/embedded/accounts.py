"""The accounts and rights of an embedded nats-server, as ``deploy/nats/nats-server.conf`` has them.

A test compares the two; docs/how-to/secure-nats.md tells why they are as they are. The names of streams, buckets and
subjects are those of the settings.
"""

from typing import Any, NamedTuple

from pyoco_server.settings.environment import Settings
from pyoco_server.settings.nats_signer import NatsRole

APP, WORKERS, KEYS = "APP", "WORKERS", "KEYS"


class Way(NamedTuple):
    """A way from the workers' account to where runs are.

    Args:
        kind: ``service`` (requests go in) or ``stream`` (messages come out).
        subject: What goes that way.
        many: For requests: seconds for which answers may come; 0: there is one.
        sent: Whether workers send to it; what they may not send to they only hear.
    """

    kind: str
    subject: str
    many: int = 0
    sent: bool = True


def accounts(settings: Settings, users: dict[NatsRole, dict[str, Any]]) -> dict[str, Any]:
    """Return the ``accounts`` of nats-server's configuration.

    Args:
        settings: How everything is called.
        users: How each role proves itself: ``{"nkey": …}`` or ``{"user": …, "password": …}``.
    """
    ways = _ways(settings)
    inbox = f"{settings.nats_inbox_prefix}.>"
    logs, control = settings.logs_subject_prefix, settings.control_subject_prefix
    gateway = {
        "publish": {"allow": _gateway_sends(settings)},
        "subscribe": {"allow": [inbox, f"{logs}.>", f"{control}.consumer.*"]},
        # The answer to a worker that asks for a consumer.
        "allow_responses": True,
    }
    worker = {
        "publish": {"allow": [way.subject for way in ways if way.kind == "service" and way.sent]},
        "subscribe": {"allow": [inbox, *(way.subject for way in ways if way.kind == "stream")]},
    }
    keys = {"publish": {"allow": _keys_sends(settings)}, "subscribe": {"allow": [inbox]}}
    return {
        APP: {
            "jetstream": "enabled",
            "users": [{**users[NatsRole.GATEWAY], "permissions": gateway}, users[NatsRole.ADMIN]],
            "exports": [
                {
                    way.kind: way.subject,
                    "accounts": [WORKERS],
                    **({"response": "stream", "threshold": f"{way.many}s"} if way.many else {}),
                }
                for way in ways
            ],
        },
        WORKERS: {
            "users": [{**users[NatsRole.WORKER], "permissions": worker}],
            "imports": [{way.kind: {"account": APP, "subject": way.subject}} for way in ways],
        },
        KEYS: {
            "jetstream": "enabled",
            "users": [{**users[NatsRole.KEYS], "permissions": keys}, users[NatsRole.KEYS_ADMIN]],
        },
    }


def _ways(settings: Settings) -> list[Way]:
    work, dlq, logs = settings.work_stream, settings.dlq_stream, settings.logs_stream
    wheels, control = settings.wheel_object_store_bucket, settings.control_subject_prefix
    return [
        # Without this one NATS would answer the workers' JetStream requests for their own account, which holds nothing.
        Way("service", "$JS.API.INFO", sent=False),
        # The queue.
        Way("service", f"$JS.API.STREAM.INFO.{work}"),
        Way("service", f"$JS.API.CONSUMER.INFO.{work}.*"),
        Way("service", f"$JS.API.CONSUMER.MSG.NEXT.{work}.*", many=90),
        Way("service", f"$JS.ACK.{work}.>"),
        Way("service", f"{control}.consumer.*"),
        # The records of runs and of workers: read and written.
        *(way for bucket in (settings.runs_kv_bucket, settings.workers_kv_bucket) for way in (
            *_reading(bucket), Way("service", f"$KV.{bucket}.>"),
        )),
        # Flows and wheels: read.
        *_reading(settings.flows_kv_bucket),
        Way("service", f"$JS.API.STREAM.INFO.OBJ_{wheels}"),
        Way("service", f"$JS.API.DIRECT.GET.OBJ_{wheels}", many=10),
        Way("service", f"$JS.API.STREAM.MSG.GET.OBJ_{wheels}"),
        Way("stream", f"$O.{wheels}.changed"),
        Way("stream", f"$O.{wheels}.M.>"),
        # Logs and dead letters: written.
        Way("service", f"$JS.API.STREAM.INFO.{logs}"),
        Way("service", f"{settings.logs_subject_prefix}.>"),
        Way("service", f"$JS.API.STREAM.INFO.{dlq}"),
        Way("service", f"{settings.dlq_subject_prefix}.*"),
        # "Look at this run's record", or your own: heard.
        Way("stream", f"{control}.*"),
    ]  # fmt: skip


def _reading(bucket: str) -> list[Way]:
    return [
        Way("service", f"$JS.API.STREAM.INFO.KV_{bucket}"),
        Way("service", f"$JS.API.DIRECT.GET.KV_{bucket}.>"),
        Way("service", f"$JS.API.STREAM.MSG.GET.KV_{bucket}"),
    ]


def _gateway_sends(settings: Settings) -> list[str]:
    work, advisories, wheels = settings.work_stream, settings.advisory_stream, settings.wheel_object_store_bucket
    runs, workers, flows = settings.runs_kv_bucket, settings.workers_kv_bucket, settings.flows_kv_bucket
    api = "$JS.API"
    return [
        f"{api}.INFO",
        # What a gateway makes when it is missing; it never removes a stream.
        f"{api}.STREAM.INFO.*", f"{api}.STREAM.CREATE.*",
        # Reading.
        f"{api}.DIRECT.GET.>", f"{api}.STREAM.MSG.GET.*",
        # The consumers of the tags, of the index, and of what NATS gave up.
        f"{api}.CONSUMER.INFO.{work}.*", f"{api}.CONSUMER.DURABLE.CREATE.{work}.*",
        f"{api}.CONSUMER.INFO.{advisories}.*", f"{api}.CONSUMER.DURABLE.CREATE.{advisories}.*",
        f"{api}.CONSUMER.MSG.NEXT.{advisories}.*", f"$JS.ACK.{advisories}.>",
        *(f"{api}.CONSUMER.{call}" for name in (runs, workers, flows)
          for call in (f"CREATE.KV_{name}", f"MSG.NEXT.KV_{name}.*")),
        f"{api}.CONSUMER.DELETE.KV_{runs}.*", f"{api}.CONSUMER.DELETE.KV_{flows}.*",
        # Taking out jobs, dead letters and wheels, and the logs and flows of runs that are gone.
        f"{api}.STREAM.MSG.DELETE.{work}", f"{api}.STREAM.MSG.DELETE.{settings.dlq_stream}",
        f"{api}.STREAM.MSG.DELETE.OBJ_{wheels}", f"{api}.STREAM.PURGE.OBJ_{wheels}",
        f"{api}.STREAM.PURGE.{settings.logs_stream}", f"{api}.STREAM.PURGE.KV_{flows}",
        f"{api}.STREAM.PURGE.KV_{runs}",
        # Writing.
        f"{settings.work_subject_prefix}.*", f"{settings.dlq_subject_prefix}.*",
        f"{settings.audit_subject_prefix}.>", f"{settings.control_subject_prefix}.*",
        f"$KV.{runs}.>", f"$KV.{flows}.*", f"$KV.{workers}.>", f"$KV.{settings.wheel_history_kv_bucket}.>",
        f"$O.{wheels}.>",
    ]  # fmt: skip


def _keys_sends(settings: Settings) -> list[str]:
    stream, api = f"KV_{settings.auth_kv_bucket}", "$JS.API"
    return [
        f"{api}.STREAM.INFO.{stream}", f"{api}.STREAM.CREATE.{stream}",
        f"{api}.DIRECT.GET.{stream}.>", f"{api}.STREAM.MSG.GET.{stream}",
        f"{api}.CONSUMER.CREATE.{stream}", f"{api}.CONSUMER.MSG.NEXT.{stream}.*",
        # That a key of the existing system was checked; it opens nothing without that key's own record.
        f"$KV.{settings.auth_kv_bucket}.sealed.*",
    ]  # fmt: skip
