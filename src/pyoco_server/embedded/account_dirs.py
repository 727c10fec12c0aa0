"""Where JetStream keeps each stream: in the directory of its account, which changes when keys are turned on or off."""

import contextlib
import os
from pathlib import Path

from pyoco_server.embedded.accounts import APP, KEYS
from pyoco_server.errors import CommandFailed

EVERYBODY = "$G"
"""The account of those who are let in without a credential; no configuration may name it."""


def has_accounts(jetstream: Path) -> bool:
    """Whether what is stored lies in accounts of its own: it was last in use with API keys.

    Args:
        jetstream: The ``jetstream`` directory of the store.
    """
    return any(_streams(jetstream / account) for account in (APP, KEYS))


def arrange(jetstream: Path, keys_stream: str | None) -> list[str]:
    """Move each stream to where nats-server will look for it. No server may be running.

    Each move is one rename, so a crash between two of them leaves nothing undone that the next start would not do.

    Args:
        jetstream: The ``jetstream`` directory of the store.
        keys_stream: The stream of the API keys, which gets an account of its own, as do all others together; ``None``:
            everything goes where everybody is let in.

    Returns:
        What was moved.

    Raises:
        CommandFailed: a stream lies in two places, or one cannot be moved. Nothing was removed.
    """
    moves = [
        (source, target)
        for account in (EVERYBODY, APP, KEYS)
        for source in _streams(jetstream / account)
        if (target := jetstream / _home(source.name, account, keys_stream) / "streams" / source.name) != source
    ]
    for source, target in moves:
        if target.exists() or [other for other in moves if other[1] == target] != [(source, target)]:
            raise CommandFailed(
                f"the stream {source.name} lies in two places: {source} and {target}",
                hint="With API keys nats-server keeps it in another place than without; an older pyoco-server made the "
                "second one. Move the one that you do not need out of that directory, and start again.",
            )
    for source, target in moves:
        try:
            target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            source.rename(target)
            for changed in (target.parent, source.parent):
                _sync(changed)
        except OSError as error:
            raise CommandFailed(f"{source} cannot be moved to {target}: {error.strerror or error}") from None
    if keys_stream is None:  # nats-server never gets healthy where there is one of an account that it does not know
        for account in (APP, KEYS):
            for empty in (jetstream / account / "streams", jetstream / account):
                with contextlib.suppress(OSError):  # there is none, or somebody put something into it
                    empty.rmdir()
    return [source.name for source, _ in moves]


def _home(stream: str, account: str, keys_stream: str | None) -> str:
    if keys_stream is None:
        return EVERYBODY
    if stream == keys_stream:
        return KEYS
    return account if account != EVERYBODY else APP


def _streams(account: Path) -> list[Path]:
    try:
        return sorted(found for found in (account / "streams").iterdir() if found.is_dir())
    except FileNotFoundError:
        return []
    except OSError as error:
        raise CommandFailed(f"{account} cannot be read: {error.strerror or error}") from None


def _sync(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
