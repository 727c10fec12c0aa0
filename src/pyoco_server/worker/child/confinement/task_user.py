"""The user as whom runs' processes run, where it is not the worker's own."""

import os
import pwd
from dataclasses import dataclass

_OF_ANOTHER = ("TMPDIR", "TEMP", "TMP", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME",
               "XDG_STATE_HOME", "SSH_AUTH_SOCK", "DBUS_SESSION_BUS_ADDRESS", "MAIL", "SUDO_USER", "SUDO_UID",
               "SUDO_GID", "SUDO_COMMAND")  # fmt: skip
"""Variables that name places of whoever started the worker."""


@dataclass(frozen=True)
class TaskUser:
    """A user of this machine.

    Args:
        name: What it is called.
        uid: Its number.
        gid: Of its first group.
        groups: Of all its groups.
        home: Its home directory.
        shell: Its shell.
    """

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str
    shell: str

    @classmethod
    def named(cls, name: str) -> "TaskUser":
        """Look a user up.

        Raises:
            LookupError: there is none of that name.
        """
        found = pwd.getpwuid(int(name)) if name.isdigit() else pwd.getpwnam(name)
        groups = tuple(os.getgrouplist(found.pw_name, found.pw_gid))
        return cls(found.pw_name, found.pw_uid, found.pw_gid, groups, found.pw_dir, found.pw_shell)

    def become(self) -> None:
        """Make this process one of the user's, for good.

        Raises:
            OSError: this process may not change its user.
        """
        os.setgroups(self.groups)
        os.setresgid(self.gid, self.gid, self.gid)
        os.setresuid(self.uid, self.uid, self.uid)
        for name in _OF_ANOTHER:
            os.environ.pop(name, None)
        os.environ.update(HOME=self.home, USER=self.name, LOGNAME=self.name, SHELL=self.shell or "/bin/sh")


def user_name(uid: int) -> str:
    """Return what a user is called; its number if nothing."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
