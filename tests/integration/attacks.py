"""What somebody tries who has stolen a credential: each try names what it wants to read or to change.

Nothing in here knows which server it attacks. ``test_secure_nats.py`` runs it against one that lets everybody do
everything, where each try must succeed, and against the configuration that we give to users, where none may.
"""

import asyncio
import base64
import contextlib
import json
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import nats
import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg

SECRET = b"TOP-SECRET..."
"""Is everything that the attacker must not read."""
OWN = "attackers-run"
"""A run whose record the attacker may write: what it holds is what it tries to have written elsewhere."""
FOREIGN = {
    "a key": "$KV.pyoco_auth.k1",
    "the audit trail": "pyoco.audit.ok.~.key.create.~",
    "the queue": "pyoco.work.cpu",
    "a flow": "$KV.pyoco_flows.f1",
    "what is known of a wheel": "$O.pyoco_wheels.M.d2hlZWw=",
    "the bytes of a wheel": "$O.pyoco_wheels.C.nuid1",
    "the history of wheels": "$KV.pyoco_wheel_history.upload.x.y",
    "what NATS gave up": "$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.PYOCO_WORK.pyoco_workers_cpu",
}
"""Subjects that are stored, and that no worker writes."""
SEALED = {
    "keys": "KV_pyoco_auth",
    "the audit trail": "PYOCO_AUDIT",
    "the queue": "PYOCO_WORK",
    "dead letters": "PYOCO_DLQ",
    "logs": "PYOCO_LOGS",
    "the history of wheels": "KV_pyoco_wheel_history",
}
"""Streams that no worker reads but by its own consumer."""


@dataclass
class Attacker:
    """A connection with the stolen credential.

    Args:
        client: The connection.
    """

    client: Client
    heard: list[Msg] = field(default_factory=list)

    @classmethod
    async def connect(cls, url: str, **credential: Any) -> "Attacker":
        """Connect."""

        async def ignore(_: Exception) -> None:
            """The refusals are what we expect."""

        return cls(await nats.connect(url, error_cb=ignore, **credential))

    async def listen(self, subject: str) -> None:
        """Hear whatever comes to a subject, if that is allowed."""

        async def hear(message: Msg) -> None:
            self.heard.append(message)

        await self.client.subscribe(subject, cb=hear)
        await self.client.flush()

    async def send(self, subject: str, body: Any = b"", *, answer_to: str | None = None, **headers: str) -> None:
        """Send a request whose answer goes to a subject of ours, or to one that is not."""
        inbox = self.client.new_inbox()
        if answer_to is None:
            await self.listen(inbox)
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        await self.client.publish(subject, data, reply=answer_to or inbox, headers=named or None)
        await self.client.flush()

    def has_read(self) -> bool:
        """Tell whether something came in that is none of ours."""
        return any(SECRET in message.data or base64.b64encode(SECRET) in message.data for message in self.heard)


Try = Callable[[Attacker], Awaitable[None]]


def tries() -> Iterator[tuple[str, Try]]:
    """Give every try by its name, those that destroy what others need last."""
    yield from _listening()
    yield from _reading()
    yield from _looking_around()
    yield from _writing()
    yield from _answers_elsewhere()
    yield from _consumers()
    yield from _streams()


def _send(subject: str, body: Any = b"", **options: Any) -> Try:
    async def do(attacker: Attacker) -> None:
        await attacker.send(subject, body, **options)

    return do


def _listening() -> Iterator[tuple[str, Try]]:
    subjects = [">", "$KV.pyoco_auth.>", "pyoco.audit.>", "pyoco.work.>", "_INBOX.>", "*.>", "$KV.*.*", "$O.>"]
    for subject in subjects:

        async def do(attacker: Attacker, subject: str = subject) -> None:
            await attacker.listen(subject)

        yield f"listen to {subject}", do


def _reading() -> Iterator[tuple[str, Try]]:
    for what, stream in SEALED.items():
        yield f"read {what}", _send(f"$JS.API.STREAM.MSG.GET.{stream}", {"seq": 1, "next_by_subj": ">"})
        yield f"read {what} directly", _send(f"$JS.API.DIRECT.GET.{stream}", {"seq": 1, "next_by_subj": ">"})
        yield f"read all of {what}", _send(f"$JS.API.DIRECT.GET.{stream}", {"seq": 1, "batch": 9, "next_by_subj": ">"})
    yield "read a key by its name", _send("$JS.API.DIRECT.GET.KV_pyoco_auth.$KV.pyoco_auth.k1")


def _ask(subject: str, body: Any = None) -> Try:
    """Make a try of a question whose answer, if there is one, is too much already."""

    async def ask(attacker: Attacker) -> None:
        data = json.dumps(body).encode() if body else b""
        with contextlib.suppress(nats.errors.Error, asyncio.TimeoutError):
            answer = await attacker.client.request(subject, data, timeout=0.2)
            if "error" not in json.loads(answer.data):
                attacker.heard.append(Msg(attacker.client, data=SECRET))

    return ask


def _looking_around() -> Iterator[tuple[str, Try]]:
    for call in ("STREAM.NAMES", "STREAM.LIST", "STREAM.INFO.KV_pyoco_auth", "STREAM.INFO.PYOCO_AUDIT",
                 "CONSUMER.NAMES.PYOCO_WORK", "CONSUMER.LIST.PYOCO_WORK", "INFO"):  # fmt: skip
        yield f"ask for {call}", _ask(f"$JS.API.{call}")
    for call in ("SERVER.PING.CONNZ", "ACCOUNT.PING.STATZ", "USER.INFO"):
        yield f"ask the system for {call}", _ask(f"$SYS.REQ.{call}")


def _writing() -> Iterator[tuple[str, Try]]:
    for what, subject in FOREIGN.items():
        yield f"write {what}", _send(subject, b"forged")
    yield "remove a key", _send("$KV.pyoco_auth.k1", KV_Operation="PURGE", Nats_Rollup="sub")
    yield "call for a cancel", _send("pyoco.control.x")
    traced = {"Nats_Trace_Only": "true", "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}
    for what in ("a key", "the queue", "what is known of a wheel"):
        yield (
            f"have a trace written over {what}",
            _send(f"$KV.pyoco_runs.{OWN}", b"x", Nats_Trace_Dest=FOREIGN[what], **traced),
        )


def _answers_elsewhere() -> Iterator[tuple[str, Try]]:
    """Requests that a worker may send, whose answer is to be written where it must not write."""
    get = {"last_by_subj": f"$KV.pyoco_runs.{OWN}"}
    requests: dict[str, tuple[str, Any]] = {
        "the reading of a record": (f"$JS.API.DIRECT.GET.KV_pyoco_runs.$KV.pyoco_runs.{OWN}", b""),
        "a leader's reading of a record": ("$JS.API.STREAM.MSG.GET.KV_pyoco_runs", get),
        "the reading of a worker": (f"$JS.API.DIRECT.GET.KV_pyoco_workers.$KV.pyoco_workers.{OWN}", b""),
        "the reading of wheels": ("$JS.API.DIRECT.GET.OBJ_pyoco_wheels", {"seq": 1, "batch": 9, "next_by_subj": ">"}),
        "what is known of a stream": ("$JS.API.STREAM.INFO.KV_pyoco_runs", b""),
        "what is known of a consumer": ("$JS.API.CONSUMER.INFO.PYOCO_WORK.pyoco_workers_cpu", b""),
        "the next job": ("$JS.API.CONSUMER.MSG.NEXT.PYOCO_WORK.pyoco_workers_cpu", {"batch": 1, "no_wait": True}),
        "the storing of a record": (f"$KV.pyoco_runs.{OWN}", b"x"),
        "the storing of a log": ("pyoco.logs.x", b"x"),
        "the storing of a dead letter": ("pyoco.dlq.cpu", b"x"),
    }
    for request, (subject, body) in requests.items():
        for what, foreign in FOREIGN.items():
            yield f"{request}, answered over {what}", _send(subject, body, answer_to=foreign)
    for what, foreign in FOREIGN.items():
        yield f"a consumer asked for, answered over {what}", _send("pyoco.control.consumer.cpu", answer_to=foreign)


def _consumers() -> Iterator[tuple[str, Try]]:
    def consumer(**config: Any) -> dict[str, Any]:
        return {"ack_policy": "none", "deliver_policy": "all", "mem_storage": True, **config}

    for stream in ("KV_pyoco_runs", "KV_pyoco_workers", "KV_pyoco_flows", "PYOCO_LOGS"):
        for number, what in enumerate(("a key", "what is known of a wheel", "the audit trail")):
            config = consumer(deliver_subject=FOREIGN[what], name=f"evil{number}")
            body = {"stream_name": stream, "config": config}
            yield f"have {stream} pushed over {what}", _send(f"$JS.API.CONSUMER.CREATE.{stream}.evil{number}", body)
    durable = {"stream_name": "PYOCO_WORK", "config": {"durable_name": "thief", "ack_policy": "explicit",
               "deliver_subject": "thief", "filter_subject": "pyoco.work.other"}}  # fmt: skip
    yield "make a consumer of the queue", _send("$JS.API.CONSUMER.DURABLE.CREATE.PYOCO_WORK.thief", durable)
    pull = {"stream_name": "KV_pyoco_auth", "config": consumer(durable_name="reader")}
    yield "make a consumer of keys", _send("$JS.API.CONSUMER.DURABLE.CREATE.KV_pyoco_auth.reader", pull)
    yield "remove the queue's consumer", _send("$JS.API.CONSUMER.DELETE.PYOCO_WORK.pyoco_workers_cpu")


def _streams() -> Iterator[tuple[str, Try]]:
    made: dict[str, dict[str, Any]] = {
        "a mirror of keys": {"mirror": {"name": "KV_pyoco_auth"}},
        "a copy of keys": {"sources": [{"name": "KV_pyoco_auth"}]},
        "a stream that writes keys": {
            "subjects": ["evil.>"],
            "republish": {"src": "evil.>", "dest": "$KV.pyoco_auth.>"},
        },
    }
    for number, (what, config) in enumerate(made.items()):
        body = {"name": f"EVIL{number}", "storage": "memory", "num_replicas": 1, **config}
        yield f"make {what}", _send(f"$JS.API.STREAM.CREATE.EVIL{number}", body)
    yield "have keys written out", _send("$JS.API.STREAM.SNAPSHOT.KV_pyoco_auth", {"deliver_subject": "_INBOX.backup"})
    config = {"name": "EVIL9", "subjects": ["evil9"], "storage": "file", "num_replicas": 1, "retention": "limits",
              "discard": "old"}  # fmt: skip
    yield "put a stream back", _ask("$JS.API.STREAM.RESTORE.EVIL9", {"config": config, "state": {}})
    for stream in ("PYOCO_DLQ", "OBJ_pyoco_wheels"):
        yield f"remove a message of {stream}", _send(f"$JS.API.STREAM.MSG.DELETE.{stream}", {"seq": 1})
    update = {"name": "PYOCO_DLQ", "subjects": ["pyoco.dlq.>"], "max_msgs": 1, "storage": "file", "num_replicas": 1,
              "retention": "limits", "discard": "old", "max_bytes": -1}  # fmt: skip
    yield "change a stream", _send("$JS.API.STREAM.UPDATE.PYOCO_DLQ", update)
    for stream in ("KV_pyoco_auth", "PYOCO_WORK", "KV_pyoco_runs", "PYOCO_LOGS", "OBJ_pyoco_wheels"):
        yield f"empty {stream}", _send(f"$JS.API.STREAM.PURGE.{stream}")
    for stream in ("KV_pyoco_auth", "PYOCO_AUDIT", "PYOCO_WORK", "KV_pyoco_runs", "OBJ_pyoco_wheels"):
        yield f"remove {stream}", _send(f"$JS.API.STREAM.DELETE.{stream}")
