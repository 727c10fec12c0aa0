"""NATS with passwords, certificates and creds files: who gets in, and what is told to who does not."""

import asyncio
import contextlib
import datetime
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from nats.errors import Error as NatsError
from nats.errors import UnexpectedEOF

from pyoco_server.errors import InvalidSetting, RightMissing, StoreRefused, StoreUnavailable
from pyoco_server.settings.environment import Settings
from pyoco_server.store import topology
from pyoco_server.store.client import PyocoNatsClient
from pyoco_server.store.nats.connection import Connection
from pyoco_server.worker.embedding import PyocoNatsWorker
from tests.nats_with_users import Certificates, NatsWith, Operator, new_seed, public_key

from .test_gateway import DEADLINE, running, until

pytestmark = pytest.mark.anyio

PASSWORD = "p@ss,w:rd/%"


def users(*more: dict[str, Any]) -> dict[str, Any]:
    return {"authorization": {"users": [{"user": "pyoco", "password": PASSWORD}, *more]}}


@contextlib.asynccontextmanager
async def connected(settings: Settings, **changes: Any) -> AsyncIterator[Connection]:
    """Connect; what is not let in raises."""
    connection = Connection(Settings.model_validate({**settings.model_dump(), **changes}), "test")
    await connection.start()
    try:
        assert await connection.wait_up(DEADLINE)
        yield connection
    finally:
        await connection.close()


async def refused(settings: Settings, **changes: Any) -> StoreRefused:
    with pytest.raises(StoreRefused) as error:
        async with connected(settings, **changes):
            pass
    assert PASSWORD not in error.value.message + error.value.hint
    return error.value


async def test_a_user_with_a_password(settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with NatsWith(tmp_path / "nats", **users()) as nats:
        given = {"nats_url": nats.url, "nats_user": "pyoco", "nats_password": PASSWORD}
        async with connected(settings, **given) as connection:
            await topology.ensure(connection)
        # In the address a password is written as addresses are; it comes along to servers that NATS tells of, too.
        address = nats.url.replace("://", "://pyoco:p%40ss%2Cw:rd%2F%25@")
        async with connected(settings, nats_url=address) as connection:
            assert connection.shown_url == nats.url
        nothing = await refused(settings, nats_url=nats.url)
        assert "asks for a credential, and none is given" in nothing.message and "PYOCO_NATS_USER" in nothing.hint
        wrong = await refused(settings, **{**given, "nats_password": "wrong"})
        assert wrong.message == f"NATS at {nats.url} refuses the credential in PYOCO_NATS_USER and PYOCO_NATS_PASSWORD"
        assert "in PYOCO_NATS_URL" in (await refused(settings, nats_url=address.replace("pyoco", "nobody"))).message
    assert PASSWORD not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("after", "stands"),
    [
        (ConnectionResetError(104, "Connection reset by peer"), True),
        (BrokenPipeError(32, "Broken pipe"), True),
        (UnexpectedEOF(), True),
        (ConnectionRefusedError(111, "Connection refused"), False),
        (asyncio.TimeoutError(), False),
    ],
)
async def test_a_refusal_stands_when_nats_breaks_the_connection_off(
    settings: Settings, after: Exception, stands: bool
) -> None:
    connection = Connection(settings, "test")
    await connection._on_error(NatsError("nats: 'Authorization Violation'"))
    await connection._on_error(after)
    assert connection.is_turned_away is stands
    assert (connection.refused is not None) is stands


async def test_a_token_and_a_seed(settings: Settings, tmp_path: Path) -> None:
    async with NatsWith(tmp_path / "a", authorization={"token": PASSWORD}) as nats:
        async with connected(settings, nats_url=nats.url, nats_token=PASSWORD):
            pass
        assert "PYOCO_NATS_TOKEN" in (await refused(settings, nats_url=nats.url, nats_token="wrong")).message
    seed = new_seed()
    (tmp_path / "seed").write_text(seed + "\n")
    async with NatsWith(tmp_path / "b", authorization={"users": [{"nkey": public_key(seed)}]}) as nats:
        async with connected(settings, nats_url=nats.url, nats_nkey_seed=tmp_path / "seed"):
            pass
        (tmp_path / "seed").write_text(new_seed())
        wrong = await refused(settings, nats_url=nats.url, nats_nkey_seed=tmp_path / "seed")
        assert "PYOCO_NATS_NKEY_SEED" in wrong.message


async def test_a_creds_file_that_expires_and_is_renewed(settings: Settings, tmp_path: Path) -> None:
    operator = Operator.make()
    creds = operator.write_creds(tmp_path / "user.creds", valid_sec=3)
    async with (
        NatsWith(tmp_path / "nats", **operator.config()) as nats,
        connected(settings, nats_url=nats.url, nats_creds=creds) as connection,
    ):
        assert connection.is_up
        await until(lambda: "PYOCO_NATS_CREDS: it has expired" in str(connection.refused))
        told = connection.refused
        await until(lambda: not connection.is_up and connection.refused not in (None, told))  # it hangs up
        assert "PYOCO_NATS_CREDS: it has expired" in str(connection.refused)
        with pytest.raises(StoreRefused):
            await topology.ensure(connection)
        for damaged in ("", "-----BEGIN NATS USER JWT-----\n"):  # while it is being written
            creds.write_text(damaged)
            await until(lambda: "is not a creds file" in str(connection.refused))
        operator.write_creds(creds)
        await until(lambda: connection.is_up)
        await topology.ensure(connection)
        assert connection.refused is None


async def test_encrypted(settings: Settings, tmp_path: Path) -> None:
    ours, other = Certificates(tmp_path / "ours"), Certificates(tmp_path / "other")
    wants_ours = ours.tls(ca_file=str(ours.ca), verify=True)
    async with NatsWith(tmp_path / "nats", **wants_ours, **users()) as nats:
        given = {
            "nats_url": nats.url,
            "nats_user": "pyoco",
            "nats_password": PASSWORD,
            "nats_tls_ca": ours.ca,
            "nats_tls_cert": ours.client[0],
            "nats_tls_key": ours.client[1],
        }
        async with connected(settings, **given) as connection:
            await topology.ensure(connection)
            assert connection.client._transport._io_writer.get_extra_info("ssl_object").version() == "TLSv1.3"
        for ca in (other.ca, None):
            untrusted = await refused(settings, **{**given, "nats_tls_ca": ca})
            assert "certificate" in untrusted.message and "PYOCO_NATS_TLS_CA" in untrusted.hint
        none = await refused(settings, **{**given, "nats_tls_cert": None, "nats_tls_key": None})
        assert "wants a client certificate" in none.message and "PYOCO_NATS_TLS_CERT" in none.hint
        stranger = {"nats_tls_cert": other.client[0], "nats_tls_key": other.client[1]}
        assert "wants a client certificate" in (await refused(settings, **{**given, **stranger})).message


async def test_a_certificate_that_is_over_or_another_hosts(settings: Settings, tmp_path: Path) -> None:
    day = datetime.timedelta(days=1)
    now = datetime.datetime.now(datetime.timezone.utc)
    over = Certificates(tmp_path / "over", not_before=now - 2 * day, not_after=now - day)
    elsewhere = Certificates(tmp_path / "elsewhere", "10.0.0.1")
    for certificates, said, hint in ((over, "expired", "Renew"), (elsewhere, "mismatch", "PYOCO_NATS_URL")):
        async with NatsWith(tmp_path / f"nats-{said}", **certificates.tls()) as nats:
            error = await refused(settings, nats_url=nats.url, nats_tls_ca=certificates.ca)
            assert said in error.message and hint in error.hint


async def test_nothing_is_sent_in_the_clear_when_tls_is_asked_for(settings: Settings, tmp_path: Path) -> None:
    sent: list[bytes] = []
    info = json.dumps({"server_id": "x", "version": "2.15.1", "max_payload": 1048576, "auth_required": True})

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(f"INFO {info}\r\n".encode())
        sent.append(await reader.read(1000))
        writer.close()

    ca = Certificates(tmp_path / "ours").ca
    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        user = {"nats_user": "pyoco", "nats_password": PASSWORD}
        for asked in (
            {"nats_url": f"nats://127.0.0.1:{port}", "nats_tls_ca": ca},
            {"nats_url": f"tls://127.0.0.1:{port}"},
        ):
            assert "speaks without TLS" in (await refused(settings, **asked, **user)).message
        assert b"".join(sent) == b""


@pytest.mark.parametrize(
    ("variable", "content", "said"),
    [
        ("CREDS", None, "cannot be read: No such file"),
        ("CREDS", "-----BEGIN NATS USER JWT-----\nx\n------END NATS USER JWT------\n", "is not a creds file"),
        ("NKEY_SEED", "SUAB", "does not hold a user's seed"),
        ("TLS_CA", None, "cannot be read: No such file"),
        ("TLS_CA", "no certificate", "holds no certificate"),
    ],
)
def test_a_file_that_cannot_be_used_stops_the_start(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variable: str, content: str | None, said: str
) -> None:
    file = tmp_path / "file"
    if content is not None:
        file.write_text(content)
    monkeypatch.setenv(f"PYOCO_NATS_{variable}", str(file))
    with pytest.raises(InvalidSetting, match=rf"PYOCO_NATS_{variable}='{file}' {said}"):
        Settings.from_env()


def test_a_key_that_is_not_the_certificates_or_encrypted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    ours, other = Certificates(tmp_path / "ours"), Certificates(tmp_path / "other")
    monkeypatch.setenv("PYOCO_NATS_TLS_CERT", str(ours.client[0]))
    with pytest.raises(InvalidSetting, match="PYOCO_NATS_TLS_CERT and PYOCO_NATS_TLS_KEY go together"):
        Settings.from_env()
    monkeypatch.setenv("PYOCO_NATS_TLS_KEY", str(other.client[1]))
    with pytest.raises(InvalidSetting, match="are no certificate with its own key"):
        Settings.from_env()


async def test_the_gateway_says_it_and_comes_alive_when_it_is_let_in(settings: Settings, tmp_path: Path) -> None:
    folder = tmp_path / "nats"
    nats = await NatsWith(folder, **users({"user": "other", "password": "x"})).start()
    port = int(nats.url.rpartition(":")[2])
    wrong = settings.model_copy(update=Settings(_env_file=None, nats_user="new", nats_password=PASSWORD).model_dump(
        include={"nats_user", "nats_password"}) | {"nats_url": nats.url})  # fmt: skip
    try:
        async with running(wrong, store=False) as here:
            await until(lambda: here.gateway.connection.refused)
            told = await here.http.get("/ready")
            assert told.status_code == 503
            assert "refuses the credential in PYOCO_NATS_USER" in told.json()["problems"][0]
            assert told.json()["nats"]["refused"] == "Compare it with the users in NATS's configuration."
            answer = await here.http.get("/runs")
            assert (answer.status_code, answer.json()["code"]) == (503, "nats_refused")
            await nats.stop()
            await until(lambda: here.gateway.connection.refused is None)
            nats = await NatsWith(folder, port=port, **users({"user": "new", "password": PASSWORD})).start()
            await until(here.gateway.run_feed.caught_up.is_set)
            assert (await here.http.get("/ready")).json()["nats"]["refused"] is None
    finally:
        await nats.stop()


async def test_a_worker_and_a_program_end_at_once(settings: Settings, tmp_path: Path) -> None:
    async with NatsWith(tmp_path / "nats", **users()) as nats:
        settings = settings.model_copy(update={"nats_url": nats.url})
        for start in (PyocoNatsWorker.connect(config=settings), PyocoNatsClient.connect(settings)):
            with pytest.raises(StoreRefused, match="asks for a credential"):
                await asyncio.wait_for(start, DEADLINE)


async def test_a_missing_right_is_named(settings: Settings, tmp_path: Path) -> None:
    bound = {"user": "bound", "password": "x", "permissions": {"publish": "$JS.API.STREAM.INFO.>", "subscribe": "_I.>"}}
    async with NatsWith(tmp_path / "nats", **users(bound)) as nats:
        given = {"nats_url": nats.url, "nats_user": "bound", "nats_password": "x", "nats_inbox_prefix": "_I"}
        async with connected(settings, **given) as connection:
            with pytest.raises(
                RightMissing, match=f"the stream {settings.work_stream} is missing, and our user may not"
            ):
                await topology.ensure(connection)
            with pytest.raises(
                StoreUnavailable, match=r"asking: NATS did not answer \(permissions violation for publish to"
            ):
                await connection.request("$JS.API.INFO", what="asking", timeout=2)
            assert connection.is_up
