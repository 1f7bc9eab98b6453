"""What ``export_session_settings`` says of ``django.contrib.auth``: backends, user model, login."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.contrib import auth
from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import CommandError
from django.db import connections, router
from django.db.models import CharField, IntegerField, Manager, QuerySet, UUIDField
from django.shortcuts import resolve_url
from django.urls import NoReverseMatch

__all__ = ["exported_auth"]

#: Whom a backend takes for whom, and what it lets them do.
DECISIONS = (
    "get_all_permissions",
    "get_group_permissions",
    "get_user",
    "get_user_permissions",
    "has_module_perms",
    "has_perm",
    "user_can_authenticate",
    "_get_group_permissions",
    "_get_permissions",
    "_get_user_permissions",
)
#: What a user model may say otherwise than Django's.
USER_METHODS = (
    "check_password",
    "get_session_auth_fallback_hash",
    "get_session_auth_hash",
    "_get_session_auth_hash",
)
PERMISSION_METHODS = ("has_module_perms", "has_perm", "has_perms")


def exported_auth() -> dict[str, Any]:
    """Return the settings of ``django.contrib.auth`` as JSON values."""
    try:
        model = auth.get_user_model()
    except ImproperlyConfigured as error:
        raise CommandError(
            f"AUTH_USER_MODEL names no model that is installed ({error}): correct it in the"
            " settings module."
        ) from error
    return {
        "AUTHENTICATION_BACKENDS": list(settings.AUTHENTICATION_BACKENDS),
        "AUTHENTICATION_BACKENDS_CLASSES": {
            path: backend_class(path) for path in settings.AUTHENTICATION_BACKENDS
        },
        "AUTH_USER_MODEL": settings.AUTH_USER_MODEL,
        "AUTH_USER_MODEL_TABLES": tables(model),
        "LOGIN_URL": login_url(),
    }


def login_url() -> str:
    """Return ``LOGIN_URL``, which may be the name of a view, as a path or an address."""
    url = str(settings.LOGIN_URL)
    if "/" in url:
        return url
    try:
        return str(resolve_url(url))
    except (AttributeError, ImproperlyConfigured, ImportError, NoReverseMatch) as error:
        raise CommandError(
            f"LOGIN_URL leads nowhere ({error}): correct it in the settings module."
        ) from error


def backend_class(path: str) -> dict[str, Any]:
    """Return which of Django's classes a backend decides like, and whether it logs in like it."""
    try:
        backend = type(auth.load_backend(path))
    except (ImportError, TypeError, AttributeError) as error:
        raise CommandError(
            f"AUTHENTICATION_BACKENDS names a class that cannot be used ({error}): correct it in"
            " the settings module, or install what it needs."
        ) from error
    base = django_base(backend)
    if base is None:
        return {"class": None, "authenticate": False}
    decides_alike = all(inherits(backend, base, name) for name in DECISIONS)
    return {
        "class": f"{base.__module__}.{base.__qualname__}" if decides_alike else None,
        "authenticate": inherits(backend, base, "authenticate") and finds_by_username(),
    }


def finds_by_username() -> bool:
    """Whether the manager finds who logs in as Django's does, by the whole name alone."""
    # It needs the apps to be ready.
    from django.contrib.auth.base_user import BaseUserManager  # noqa: PLC0415

    manager = type(auth.get_user_model()._default_manager)
    return inherits(manager, BaseUserManager, "get_by_natural_key")


def django_base(backend: type) -> type | None:
    """Return the first class that is one of Django's backends."""
    for base in backend.__mro__:
        if base.__module__ == "django.contrib.auth.backends":
            return base
    return None


def inherits(cls: type, base: type, name: str) -> bool:
    """Whether a method is the one that the base has."""
    return getattr(cls, name, None) is getattr(base, name, None)


def tables(model: Any) -> dict[str, Any] | None:
    """Return the table and the columns of the user model; ``None`` if they are in several."""
    meta = model._meta
    pk_type = primary_key_type(model)
    fields = {field.name: field for field in meta.concrete_fields}
    wanted = ("password", "is_active", "is_staff", "is_superuser", "last_login")
    username = fields[str(model.USERNAME_FIELD)]
    used = [username, *(fields[name] for name in wanted if name in fields)]
    if pk_type is None or any(field.model._meta.db_table != meta.db_table for field in used):
        return None
    return {
        "table": meta.db_table,
        "primary_key": meta.pk.column,
        "primary_key_type": pk_type,
        "username": username.column,
        **{name: fields[name].column if name in fields else None for name in wanted},
        "permissions": permission_tables(model),
        "overrides": overrides(model),
    }


def primary_key_type(model: Any) -> str | list[int] | None:
    """Return ``"text"``, ``"uuid"``, or the least and the greatest number."""
    pk = model._meta.pk
    if isinstance(pk, UUIDField):
        return "uuid"
    if isinstance(pk, CharField):
        return "text"
    if not isinstance(pk, IntegerField):
        return None
    operations = connections[router.db_for_read(model)].ops
    # SQLite has no range of its own.
    found: tuple[Any, Any] = operations.integer_field_range(pk.get_internal_type())
    least, greatest = found
    return [-(2**63) if least is None else least, 2**63 - 1 if greatest is None else greatest]


def permission_tables(model: Any) -> dict[str, str] | None:
    """Return the tables between users, groups and permissions."""
    fields = {field.name: field for field in model._meta.many_to_many}
    if not {"groups", "user_permissions"} <= fields.keys():
        return None
    groups, permissions = fields["groups"], fields["user_permissions"]
    return {
        "user_groups": groups.m2m_db_table(),
        "user_groups_user": groups.m2m_column_name(),
        "user_permissions": permissions.m2m_db_table(),
        "user_permissions_user": permissions.m2m_column_name(),
    }


def overrides(model: Any) -> list[str]:
    """Return what of the model is code of the site's own that decides who a user is."""
    # These need the apps to be ready.
    from django.contrib.auth.base_user import AbstractBaseUser  # noqa: PLC0415
    from django.contrib.auth.models import PermissionsMixin  # noqa: PLC0415

    found = [
        name
        for name in USER_METHODS
        if getattr(model, name, None) is not getattr(AbstractBaseUser, name, None)
    ]
    if issubclass(model, PermissionsMixin):
        found += [
            name for name in PERMISSION_METHODS if not inherits(model, PermissionsMixin, name)
        ]
    columns = {field.name for field in model._meta.concrete_fields}
    # A property that computes it, and not Django's constant.
    found += [
        name
        for name in ("is_active", "is_staff", "is_superuser")
        if name not in columns and isinstance(getattr(model, name, None), property)
    ]
    if "is_active" not in columns and not getattr(model, "is_active", True):
        found.append("is_active")
    manager: Any = model._default_manager
    queryset = manager._queryset_class  # noqa: SLF001 - what `from_queryset` was given
    for cls, base, names in (
        (type(manager), Manager, ("get_queryset", "get")),
        (queryset, QuerySet, ("get", "filter", "_filter_or_exclude")),
    ):
        found += [f"{cls.__name__}.{name}" for name in names if not inherits(cls, base, name)]
    return found
