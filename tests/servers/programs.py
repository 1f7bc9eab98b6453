"""The programs of the servers: where they are, and Debian's packages when they are not."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

LOG_LINES = 40
POLICY = Path("/usr/sbin/policy-rc.d")

# Debian keeps servers in directories that an ordinary PATH leaves out.
PROGRAM_DIRECTORIES = ("/usr/sbin", "/usr/local/sbin", "/sbin")


class ServiceError(Exception):
    """A server did not start, or its programs could not be installed."""


class MissingError(ServiceError):
    """The programs of a server are not on this machine, and cannot be installed here."""


def find_program(name: str, patterns: Sequence[str] = ()) -> str | None:
    """Return the path of `name`, looked up in glob `patterns` (newest last) and then in PATH."""
    for pattern in patterns:
        found = [path for path in Path("/").glob(pattern.lstrip("/")) if (path / name).exists()]
        if found:
            return str(max(found, key=_version_in) / name)
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), *PROGRAM_DIRECTORIES])
    return shutil.which(name, path=path)


def _version_in(path: Path) -> tuple[int, ...]:
    digits = [part for part in path.parts if part.replace(".", "").isdigit()]
    return tuple(int(number) for number in digits[-1].split(".")) if digits else ()


@contextlib.contextmanager
def no_service_starts() -> Iterator[None]:
    """Keep Debian's packages from starting a server when they are installed.

    `policy-rc.d` is Debian's own switch for this. A file that is there already is the machine's
    decision and stays as it is.
    """
    if POLICY.exists() or POLICY.is_symlink():
        yield
        return
    POLICY.write_text("#!/bin/sh\nexit 101\n")
    POLICY.chmod(0o755)
    try:
        yield
    finally:
        POLICY.unlink(missing_ok=True)


def install(packages: Sequence[str]) -> None:
    """Install Debian packages; raise `MissingError` where that is not possible."""
    apt = shutil.which("apt-get")
    if apt is None:
        raise MissingError("no apt-get here")
    if os.geteuid() != 0:
        raise MissingError("not root")
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    lock = ["-o", "DPkg::Lock::Timeout=300"]
    steps = [
        [apt, *lock, "-qq", "update"],
        [apt, *lock, "-qq", "-y", "--no-install-recommends", "install", *packages],
    ]
    with no_service_starts():
        for step in steps:
            result = subprocess.run(
                step,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=environment,
                check=False,
            )
            # An update may fail for one of several sources; the installation is what counts.
            if result.returncode != 0 and step is steps[-1]:
                tail = result.stdout.decode(errors="replace").splitlines()[-LOG_LINES:]
                raise MissingError("apt-get failed:\n" + "\n".join(tail))
