"""``python -m django_session_rs`` is the command ``django-session``."""

from __future__ import annotations

import sys

from django_session_rs.command import main

if __name__ == "__main__":
    sys.exit(main())
