"""The command ``django-session``, as pip installs it.

It needs a process to itself: it may open a file of SQLite by a library of its own, and SQLite's
locks do not hold between two libraries in one process.
"""

from __future__ import annotations

import sys

from django_session_rs._native import _command

__all__ = ["main"]


def main() -> int:
    """Run the command with the arguments of this process; return its exit code."""
    return _command(["django-session", *sys.argv[1:]])
