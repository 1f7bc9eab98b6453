"""Template context of each page: who rendered it, and where the other server is."""

from typing import Any

import django
from django.conf import settings
from django.http import HttpRequest


def servers(request: HttpRequest) -> dict[str, Any]:
    major, minor, *_ = django.VERSION
    return {
        "django_version": f"{major}.{minor}",
        "rust_url": f"http://{rust_host(request)}/",
        "session_engine": settings.SESSION_ENGINE,
    }


def rust_host(request: HttpRequest) -> str:
    """Host and port of the Rust server, under the name the browser already uses.

    A page opened as ``localhost`` must not link to ``127.0.0.1``: the cookie would stay behind.
    """
    name = request.get_host().partition(":")[0]
    return f"{name}:{settings.RUST_PORT}"
