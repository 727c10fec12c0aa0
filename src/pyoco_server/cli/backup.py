"""``pyoco-server backup`` and ``restore``."""

import asyncio
import contextlib
import os
import secrets
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import IO, Any, BinaryIO, TypeVar

import click

from pyoco_server.cli.nats_option import nats_url_option
from pyoco_server.cli.output import print_json, print_note
from pyoco_server.embedded.account_dirs import has_accounts
from pyoco_server.embedded.keyring import Keyring
from pyoco_server.embedded.nats_server import LINUX, NatsServer
from pyoco_server.errors import CommandFailed
from pyoco_server.process.logs import configure_logging
from pyoco_server.settings.environment import Settings
from pyoco_server.settings.nats_signer import NatsRole
from pyoco_server.store.backup.archive import Archive, Manifest, open_archive
from pyoco_server.store.backup.restoring import Restore
from pyoco_server.store.backup.taking import back_up, streams_in_order
from pyoco_server.store.nats.connection import Connection, connected

_CONNECT_SEC = 10.0
_PIPE = "-"
_Command = TypeVar("_Command", bound=Callable[..., None])


def _options(command: _Command) -> _Command:
    """Add what both commands take."""
    for add in reversed((
        click.argument("file", type=click.Path(path_type=Path, allow_dash=True)),
        nats_url_option,
        click.option("--with-nats", is_flag=True, help="Start the own nats-server of 'up --with-nats' for it."),
        click.option("--nats-store-dir", type=click.Path(path_type=Path), help="Its data  [default: .pyoco/nats]"),
    )):  # fmt: skip
        command = add(command)
    return command


@click.command(epilog="Example: pyoco-server backup pyoco-$(date +%F).tar")
@_options
def backup(file: Path, **nats: Any) -> None:
    """Write all that is kept in NATS into FILE (-: stdout), while everything goes on.

    FILE appears, or is replaced, when it is whole. It holds everything, so only you may read it.
    """
    settings = _settings(nats["nats_url"])
    began = time.monotonic()
    with _interruptible(), _whole_file(file) as out:
        manifest = asyncio.run(_back_up(settings, nats, out))
    summary = _summary(manifest, file, began)
    if str(file) != _PIPE:
        print_json({**summary, "bytes": file.stat().st_size, "missing": manifest.missing})
    print_note(f"backed up {len(manifest.streams)} streams in {summary['seconds']} s")


@click.command(epilog="Example: pyoco-server restore pyoco-2026-11-24.tar")
@_options
@click.option("--replace", is_flag=True, help="Remove what is there. Without it only an empty NATS is restored into.")
@click.option("--while-running", is_flag=True, help="Although gateways or workers are seen; what they write is lost.")
def restore(file: Path, replace: bool, while_running: bool, **nats: Any) -> None:
    """Put the backup FILE (-: stdin) into NATS, once all of it was found to be whole.

    Stop gateways and workers first. PYOCO_NATS_REPLICAS, if it is set, decides how many replicas the streams get. A
    restore that was interrupted is simply repeated.
    """
    settings = _settings(nats["nats_url"])
    began = time.monotonic()
    with _interruptible(), _opened(file) as archive:
        archive.verify()
        print_note(f"{file} is whole")
        replaced = asyncio.run(_restore(settings, nats, archive, replace=replace, while_running=while_running))
        print_json({**_summary(archive.manifest, file, began), "replaced": replaced})
    print_note("restored; now start gateways and workers")


COMMANDS = [backup, restore]


async def _back_up(settings: Settings, nats: dict[str, Any], out: BinaryIO | IO[bytes]) -> Manifest:
    async with _connected(settings, nats, "pyoco-server:backup") as (connection, keys):
        return await back_up(streams_in_order(connection, keys), out, print_note)


async def _restore(
    settings: Settings, nats: dict[str, Any], archive: Archive, *, replace: bool, while_running: bool
) -> list[str]:
    replicas = settings.nats_replicas if "nats_replicas" in settings.model_fields_set else None
    async with _connected(settings, nats, "pyoco-server:restore") as (connection, keys):
        restore = Restore(archive, streams_in_order(connection, keys), replicas=replicas, tell=print_note)
        await restore.check(replace=replace, while_running=while_running)
        return await restore.run()


@contextlib.asynccontextmanager
async def _connected(
    settings: Settings, nats: dict[str, Any], name: str
) -> AsyncIterator[tuple[Connection, Connection | None]]:
    """Connect to NATS, and to the API keys where these are kept apart.

    NATS may be one that is started for it, if that was asked for.
    """
    if nats["with_nats"] and nats["nats_url"]:
        raise CommandFailed(
            "--nats-url names a NATS that runs already, --with-nats starts another", hint="Leave one of the two out."
        )
    async with contextlib.AsyncExitStack() as parts:
        if nats["with_nats"]:
            store = nats["nats_store_dir"] or settings.own_nats_store
            # Also for a moment it must not let in whom "up" would not: tasks of other workers may be running.
            guarded = settings.http_auth_mode == "api_key" or has_accounts(store / "data" / "jetstream")
            keyring = Keyring() if guarded and LINUX else None
            server = NatsServer(
                store, client_port=-1, http_port=-1, sync=settings.nats_sync, keyring=keyring, names=settings
            )
            await parts.enter_async_context(server)
            settings = settings.at(server.url, signer=keyring)
        settings = settings.with_local_signer()
        admin = connected(settings, name, _CONNECT_SEC, role=NatsRole.ADMIN)
        connection = await parts.enter_async_context(admin)
        keys = None
        if settings.keys_apart:
            target = settings.keys_target(NatsRole.KEYS_ADMIN)
            apart = connected(settings, f"{name}-keys", _CONNECT_SEC, target=target)
            keys = await parts.enter_async_context(apart)
        yield connection, keys


def _settings(nats_url: str | None) -> Settings:
    """Read the settings, and keep stdout for the answer."""
    settings = Settings.from_env(nats_url=nats_url)
    quiet = settings if settings.log_level == "DEBUG" else settings.model_copy(update={"log_level": "ERROR"})
    configure_logging(service="pyoco-server", settings=quiet, stderr=True)
    return settings


def _summary(manifest: Manifest, file: Path, began: float) -> dict[str, Any]:
    return {
        "file": str(file),
        "created_at": manifest.created_at,
        "pyoco_server": manifest.pyoco_server,
        "nats_server": manifest.nats_server,
        "streams": {stream.name: stream.state["messages"] for stream in manifest.streams},
        "seconds": round(time.monotonic() - began, 1),
    }


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Let SIGTERM end a command as Ctrl-C does, so that it tidies up."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def _whole_file(path: Path) -> Iterator[BinaryIO | IO[bytes]]:
    """Give a file to write; it gets its name when the block has ended well, and is gone otherwise.

    Raises:
        CommandFailed: it cannot be written.
    """
    if str(path) == _PIPE:
        if sys.stdout.isatty():
            raise CommandFailed("a backup is nothing for a terminal", hint="Name a file, or send it through a pipe.")
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    path = path.resolve()  # where a link points to, not the link, is replaced
    if path.exists() and not path.is_file():
        raise CommandFailed(f"{path} is no file that could be replaced", hint="Name a file, or - for stdout.")
    aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        with os.fdopen(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
            yield out
            out.flush()
            os.fsync(out.fileno())
        aside.rename(path)
        _sync_directory(path.parent)
    except OSError as error:
        raise CommandFailed(f"{path} cannot be written: {error.strerror or error}") from None
    finally:
        aside.unlink(missing_ok=True)


def _sync_directory(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Archive]:
    if str(path) != _PIPE:
        with open_archive(path) as archive:
            yield archive
        return
    with tempfile.TemporaryFile() as aside:  # it is read twice
        shutil.copyfileobj(sys.stdin.buffer, aside)
        aside.seek(0)
        with Archive(aside) as archive:
            yield archive
