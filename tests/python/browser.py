"""Where the browser of the browser tests is; installs Debian's if there is none and it may.

`python tests/python/browser.py` does just that, for the Makefile.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

NAMES = ("chromium", "chromium-browser", "google-chrome")

# No sandbox: Chromium refuses to start one as root. The rest keeps it off the network.
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def find() -> str | None:
    return next(filter(None, map(shutil.which, NAMES)), None)


def find_or_install() -> str | None:
    """The path of a browser, or `None` where there is none and it cannot be installed."""
    if found := find():
        return found
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        return None
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    for arguments in (["update"], ["install", "--yes", "--no-install-recommends", "chromium"]):
        command = ["apt-get", "--quiet", *arguments]
        if subprocess.run(command, check=False, env=environment, stdout=sys.stderr).returncode:
            return None
    return find()


if __name__ == "__main__":
    path = find_or_install()
    print(path or "No Chromium here: install it, the browser tests need one.")
    sys.exit(0 if path else 1)
