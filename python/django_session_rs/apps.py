"""The app configuration: needed for the management command, not for the engine."""

from __future__ import annotations

from django.apps import AppConfig

__all__ = ["DjangoSessionRsConfig"]


class DjangoSessionRsConfig(AppConfig):
    """Add ``"django_session_rs"`` to ``INSTALLED_APPS`` for ``export_session_settings``."""

    name = "django_session_rs"
    verbose_name = "Sessions shared with Rust"
