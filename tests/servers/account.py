"""Who runs the servers and their helpers."""

from __future__ import annotations

import contextlib
import os
import pwd
import subprocess
from collections.abc import Sequence
from pathlib import Path

# What the programs would read from the environment of whoever runs the tests.
FOREIGN_SETTINGS = ("PG", "MYSQL", "REDISCLI_")


class Account:
    """This user, or an unprivileged one when this user is root."""

    def __init__(self, *names: str) -> None:
        self._entry: pwd.struct_passwd | None = None
        if os.geteuid() == 0:
            for name in (*names, "nobody"):
                with contextlib.suppress(KeyError):
                    self._entry = pwd.getpwnam(name)
                    break

    def own(self, path: Path) -> None:
        """Give `path` to the account."""
        if self._entry is not None:
            os.chown(path, self._entry.pw_uid, self._entry.pw_gid)

    def popen(self, command: Sequence[str], home: Path, output: int) -> subprocess.Popen[bytes]:
        """Start `command` as the account, out of reach of the terminal's Ctrl-C."""
        environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(FOREIGN_SETTINGS)
        }
        environment.update(HOME=str(home), TMPDIR=str(home), LC_ALL="C")
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=home,
            env=environment,
            start_new_session=True,
            user=None if self._entry is None else self._entry.pw_uid,
            group=None if self._entry is None else self._entry.pw_gid,
            extra_groups=None if self._entry is None else [],
        )
