"""The app configuration: needed for the management commands, not for the engines."""

from __future__ import annotations

from django.apps import AppConfig

__all__ = ["DjangoSessionRsConfig"]


class DjangoSessionRsConfig(AppConfig):
    """Add ``"django_session_rs"`` to ``INSTALLED_APPS`` for its management commands.

    They are ``export_session_settings`` and ``sessions``.
    """

    name = "django_session_rs"
    verbose_name = "Sessions shared with Rust"
