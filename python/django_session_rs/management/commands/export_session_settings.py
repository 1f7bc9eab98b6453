"""Write the settings of sessions, users and CSRF protection as JSON, for other programs."""

from __future__ import annotations

import base64
import json
import os
import tempfile
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import django
from django.apps import apps
from django.conf import settings
from django.contrib.auth import hashers
from django.contrib.sessions.backends import signed_cookies
from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError
from django.utils.module_loading import import_string

from django_session_rs.management.exported_auth import exported_auth

if TYPE_CHECKING:
    from argparse import ArgumentParser

__all__ = ["Command"]

# Setting, the types it may have, and the same in words.
TEXT = ((str,), "a text")
TRUTH = ((bool,), "True or False")
OPTIONAL_TEXT = ((str, type(None)), "a text or None")
TEXTS = ((list, tuple, set, frozenset), "a list of texts")
LIMIT = ((int, type(None)), "a number or None")
SAMESITE = ((str, bool, type(None)), "'Lax', 'Strict', 'None', None or False")
SETTINGS: dict[str, tuple[tuple[type, ...], str]] = {
    "ALLOWED_HOSTS": TEXTS,
    "CSRF_COOKIE_AGE": ((int, type(None)), "a whole number of seconds or None"),
    "CSRF_COOKIE_DOMAIN": OPTIONAL_TEXT,
    "CSRF_COOKIE_HTTPONLY": TRUTH,
    "CSRF_COOKIE_NAME": TEXT,
    "CSRF_COOKIE_PATH": TEXT,
    "CSRF_COOKIE_SAMESITE": SAMESITE,
    "CSRF_COOKIE_SECURE": TRUTH,
    "CSRF_HEADER_NAME": TEXT,
    "CSRF_TRUSTED_ORIGINS": TEXTS,
    "CSRF_USE_SESSIONS": TRUTH,
    "DATA_UPLOAD_MAX_MEMORY_SIZE": LIMIT,
    "DATA_UPLOAD_MAX_NUMBER_FIELDS": LIMIT,
    "DATA_UPLOAD_MAX_NUMBER_FILES": LIMIT,
    "DEBUG": TRUTH,
    "LANGUAGE_COOKIE_NAME": TEXT,
    "MIDDLEWARE": TEXTS,
    "SECURE_PROXY_SSL_HEADER": ((list, tuple, type(None)), "a pair of texts or None"),
    "SESSION_CACHE_ALIAS": TEXT,
    "SESSION_COOKIE_AGE": ((int,), "a whole number of seconds"),
    "SESSION_COOKIE_DOMAIN": OPTIONAL_TEXT,
    "SESSION_COOKIE_HTTPONLY": TRUTH,
    "SESSION_COOKIE_NAME": TEXT,
    "SESSION_COOKIE_PATH": TEXT,
    "SESSION_COOKIE_SAMESITE": SAMESITE,
    "SESSION_COOKIE_SECURE": TRUTH,
    "SESSION_ENGINE": TEXT,
    "SESSION_EXPIRE_AT_BROWSER_CLOSE": TRUTH,
    "SESSION_FILE_PATH": ((str, os.PathLike, type(None)), "a path or None"),
    "SESSION_SAVE_EVERY_REQUEST": TRUTH,
    "SESSION_SERIALIZER": TEXT,
    "TIME_ZONE": ((str,), "the name of a time zone"),
    "USE_TZ": TRUTH,
    "USE_X_FORWARDED_HOST": TRUTH,
    "USE_X_FORWARDED_PORT": TRUTH,
}

# What a store of sessions asks for.
STORE_SETTINGS = ("SESSION_SERIALIZER", "TIME_ZONE", "USE_TZ")

RUST_SETTINGS = (
    "DEFAULT_HASHING_ALGORITHM",
    "SESSION_ACCEPT",
    "SESSION_FORMAT",
    "SESSION_ON_CONFLICT",
    "SESSION_TOUCH_INTERVAL",
)

# Of `backends.moving`.
MOVING_SETTINGS = ("SESSION_MOVING_FROM", "SESSION_MOVING_TO", "SESSION_MOVING_WRITE")

# What `django-session doctor` knows by these names, whatever a site has made of them.
MIDDLEWARE_BASES = (
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
)

# What a hasher class may say otherwise than its base in Django, and still be the same hasher.
HASHER_PARAMETERS = (
    "block_size",
    "iterations",
    "maxmem",
    "memory_cost",
    "parallelism",
    "rounds",
    "salt_entropy",
    "time_cost",
    "work_factor",
)

# What Python puts into a class by itself.
CLASS_NAMES = (
    "__annotate_func__",
    "__annotations__",
    "__annotations_cache__",
    "__doc__",
    "__firstlineno__",
    "__module__",
    "__static_attributes__",
)


class Command(BaseCommand):
    """``manage.py export_session_settings [--output FILE] [--include-secret]``."""

    help = (
        "Writes every setting that sessions, users and CSRF protection depend on as one JSON "
        "object: to standard output, or whole and at once to a file. Without --include-secret no "
        "key is written."
    )
    requires_system_checks = []  # noqa: RUF012 - Django's attribute

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the options."""
        parser.add_argument("--output", metavar="FILE", help="Write to this file.")
        parser.add_argument(
            "--include-secret",
            action="store_true",
            help="Write SECRET_KEY and SECRET_KEY_FALLBACKS too; a file then gets mode 0600.",
        )

    def handle(self, *, output: str | None, include_secret: bool, **_: Any) -> None:
        """Write the settings; ``CommandError`` names a setting that is not usable."""
        text = json.dumps(exported(include_secret=include_secret), indent=2) + "\n"
        if output is None:
            self.stdout.write(text, ending="")
            return
        try:
            write_whole(Path(output), text, private=include_secret)
        except OSError as error:
            raise CommandError(f"Cannot write {output}: {error.strerror}.") from error


def exported(*, include_secret: bool) -> dict[str, Any]:
    """Return the settings as JSON values."""
    found = exported_sessions(include_secret=include_secret)
    if apps.is_installed("django.contrib.auth"):
        found |= exported_auth()
        found["PASSWORD_HASHERS"] = checked("PASSWORD_HASHERS", (list, tuple), "a list of classes")
        found["PASSWORD_HASHERS_PARAMETERS"] = hasher_parameters()
    return dict(sorted(found.items()))


def exported_sessions(*, include_secret: bool) -> dict[str, Any]:
    """Return those that have nothing to do with users."""
    found: dict[str, Any] = {"DJANGO_VERSION": django.get_version()}
    for name, (types, words) in SETTINGS.items():
        found[name] = checked(name, types, words)
    found["CACHES_BACKENDS"] = cache_backends()
    found["INSTALLED_APPS"] = [config.name for config in apps.get_app_configs()]
    found["MIDDLEWARE_BASES"] = [middleware_base(path) for path in found["MIDDLEWARE"]]
    found |= {name: plain(name) for name in MOVING_SETTINGS if hasattr(settings, name)}
    found["SESSION_SALT"] = engine_salt(found["SESSION_ENGINE"])
    return found | exported_store(include_secret=include_secret)


def exported_store(*, include_secret: bool) -> dict[str, Any]:
    """Return those that say how sessions are stored."""
    found = {name: checked(name, *SETTINGS[name]) for name in STORE_SETTINGS}
    found["SESSION_COMPRESSION"] = compression()
    # Those that only the Rust side reads go as they are: it says what is wrong with them.
    found |= {name: plain(name) for name in RUST_SETTINGS if hasattr(settings, name)}
    if is_function(found.get("SESSION_ON_CONFLICT")):
        # Nobody but Python can ask it: to others it is the rule that it refines.
        found["SESSION_ON_CONFLICT"] = "merge"
    fallbacks = checked("SECRET_KEY_FALLBACKS", (list, tuple), "a list of keys")
    found["SECRET_KEY_FALLBACKS_COUNT"] = len(fallbacks)
    if include_secret:
        try:
            key = settings.SECRET_KEY
        except ImproperlyConfigured as error:
            raise CommandError("SECRET_KEY is empty: set it in the settings module.") from error
        found["SECRET_KEY"] = as_json_key("SECRET_KEY", key)
        found["SECRET_KEY_FALLBACKS"] = [
            as_json_key("SECRET_KEY_FALLBACKS", key) for key in fallbacks
        ]
    return found


def checked(name: str, types: tuple[type, ...], words: str) -> Any:
    """Return a setting if it is of one of these types."""
    try:
        value = getattr(settings, name)
    except AttributeError:
        raise CommandError(f"{name} is missing: set it to {words}.") from None
    # What is as good to Django.
    if types == TRUTH[0] and value in (0, 1):
        value = bool(value)
    elif int in types and isinstance(value, float) and value.is_integer():
        value = int(value)
    is_stray_bool = isinstance(value, bool) and bool not in types
    is_usable = isinstance(value, types) and not is_stray_bool
    if is_usable and name.endswith("_SAMESITE"):
        is_usable = is_samesite(value)
    if is_usable and "texts" in words and value is not None:
        texts: Any = value
        is_usable = all(isinstance(text, str) for text in texts)
    if not is_usable:
        raise CommandError(f"{name} must be {words}: correct it in the settings module.")
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def plain(name: str) -> Any:
    """Return a setting as JSON has it."""
    value = getattr(settings, name)
    if is_function(value):
        return value
    found = sorted(value) if isinstance(value, (set, frozenset)) else value
    try:
        json.dumps(found)
    except (TypeError, ValueError):
        raise CommandError(
            f"{name} must be a number, a text or a list: correct it in the settings module."
        ) from None
    return found


def is_function(value: Any) -> bool:
    """Whether a setting is a function or the path of one."""
    return callable(value) or (isinstance(value, str) and "." in value)


def is_samesite(value: object) -> bool:
    """Whether Django can write this: false and None leave it out, ``"None"`` sends it."""
    if isinstance(value, str):
        return value.lower() in {"lax", "none", "strict"}
    return value is None or value is False


def cache_backends() -> dict[str, dict[str, Any]]:
    """Return the class of each cache and how much it keeps; not where it is, nor its password."""
    found = {}
    for alias, cache in checked("CACHES", (dict,), "a dictionary of caches").items():
        options = cache.get("OPTIONS") or {}
        # Either spelling, the second being that of old.
        most = options.get("MAX_ENTRIES", cache.get("MAX_ENTRIES"))
        found[alias] = {
            "BACKEND": cache.get("BACKEND"),
            "MAX_ENTRIES": most if isinstance(most, int) else None,
        }
    return found


def middleware_base(path: str) -> str | None:
    """Return which class of Django's a middleware is or inherits from, of those that count."""
    try:
        middleware = import_string(path)
    except ImportError as error:
        raise CommandError(
            f"MIDDLEWARE names a class that cannot be imported ({error}): correct it in the "
            "settings module, or install what it needs."
        ) from error
    if not isinstance(middleware, type):
        return None
    names = (f"{base.__module__}.{base.__qualname__}" for base in middleware.__mro__)
    return next((name for name in names if name in MIDDLEWARE_BASES), None)


def compression() -> str:
    """Return ``SESSION_COMPRESSION``, the engine's own setting."""
    value = getattr(settings, "SESSION_COMPRESSION", "fast")
    if value not in ("fast", "small"):
        raise CommandError(
            "SESSION_COMPRESSION must be 'fast' or 'small': correct it in the settings module."
        )
    return str(value)


def hasher_parameters() -> dict[str, dict[str, Any]]:
    """Return what each hasher is, by its path: a class of Django's, or one of the site's own."""
    try:
        loaded = hashers.get_hashers()
    except (ImportError, ImproperlyConfigured) as error:
        raise CommandError(
            f"PASSWORD_HASHERS names a class that cannot be used ({error}): correct it in the "
            "settings module, or install what it needs."
        ) from error
    return {
        path: hasher_description(hasher)
        for path, hasher in zip(settings.PASSWORD_HASHERS, loaded, strict=True)
    }


def hasher_description(hasher: hashers.BasePasswordHasher) -> dict[str, Any]:
    """Return the algorithm of a hasher and, unless it has code of its own, class and parameters."""
    found: dict[str, Any] = {"algorithm": hasher.algorithm}
    base = hasher_base(type(hasher))
    if base is None:
        return found
    found["class"] = f"{base.__module__}.{base.__qualname__}"
    found |= {name: getattr(hasher, name) for name in HASHER_PARAMETERS if hasattr(hasher, name)}
    if issubclass(base, hashers.BCryptSHA256PasswordHasher):
        truncates = bcrypt_truncates()
        if truncates is not None:
            found["truncate"] = truncates
    return found


def hasher_base(hasher: type) -> type | None:
    """Return Django's class that a hasher is, if nothing but parameters tells them apart."""
    for base in hasher.__mro__:
        if base.__module__ == hashers.__name__:
            return base
        if not vars(base).keys() <= {*HASHER_PARAMETERS, *CLASS_NAMES}:
            return None
    return None


def bcrypt_truncates() -> bool | None:
    """Whether the ``bcrypt`` installed cuts long passwords off; since 5.0 it refuses them."""
    # A worker with the engine `native` has this module, and no need of what reads archives.
    from importlib import metadata  # noqa: PLC0415

    try:
        return int(metadata.version("bcrypt").split(".")[0]) < 5
    except (metadata.PackageNotFoundError, ValueError):
        return None


def engine_salt(engine: str) -> str:
    """Return the salt with which the engine's ``SessionStore`` signs."""
    try:
        store_class = import_module(engine).SessionStore
        if issubclass(store_class, signed_cookies.SessionStore):
            # This engine takes a salt of its own, past `key_salt`.
            return "django.contrib.sessions.backends.signed_cookies"
        return str(store_class().key_salt)
    except ImportError as error:
        raise CommandError(
            f"SESSION_ENGINE names a module that cannot be imported ({error}): correct it in the "
            "settings module, or install what it needs."
        ) from error
    except AttributeError as error:
        raise CommandError(
            "SESSION_ENGINE names a module without a usable SessionStore: correct it in the "
            "settings module."
        ) from error


def as_json_key(name: str, key: Any) -> str | dict[str, str]:
    """Return a key as text, or as base64 if it is bytes that are no text."""
    if isinstance(key, str):
        return key
    if not isinstance(key, bytes):
        raise CommandError(f"{name} must hold text or bytes: correct it in the settings module.")
    try:
        return key.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(key).decode("ascii")}


def write_whole(path: Path, text: str, *, private: bool) -> None:
    """Write a file so that a reader sees the old content or the new, never a part."""
    path = path.resolve()
    if path.exists() and not path.is_file():
        # A terminal, or a pipe.
        path.write_text(text, encoding="utf-8")
        return
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        if not private:
            # mkstemp gives 0600; what holds no secret gets what the user's mask allows.
            mask = os.umask(0)
            os.umask(mask)
            temporary.chmod(0o666 & ~mask)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
