"""Awaiting what a session can do, whatever of it is asynchronous.

Django's sessions have asynchronous twins of their methods from 5.1 on (``asave()`` for ``save()``),
an engine may have some of its own, and a project may have replaced only the synchronous method in a
subclass. Django's code under ASGI calls the synchronous one in a thread, so that is what counts
there; here the thread is the last resort.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from asgiref.sync import sync_to_async
from django.contrib.sessions.backends.base import SessionBase

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["call", "has_twin", "load"]


async def call(target: Any, name: str, *args: Any) -> Any:
    """Await the asynchronous twin of a method, or the method in Django's thread if it has none.

    Methods of ``SessionBase`` only compute, once the session is loaded; before Django 5.1 they have
    no twins, and only the loading is awaited.
    """
    cls: Any = type(target)
    if has_twin(cls, name):
        return await getattr(target, f"a{name}")(*args)
    if isinstance(target, SessionBase) and _computes(cls, name):
        await load(target)
        return getattr(target, name)(*args)
    return await sync_to_async(getattr(target, name))(*args)


async def load(session: Any) -> None:
    """Load the session unless it is loaded, as the first access does."""
    cls: Any = type(session)
    if hasattr(session, "_session_cache"):
        session.accessed = True
    elif has_twin(cls, "_get_session"):
        await session._aget_session()  # noqa: SLF001
    elif cls._get_session is SessionBase._get_session:  # type: ignore[attr-defined] # noqa: SLF001
        session.accessed = True
        key = session.session_key
        session._session_cache = {} if key is None else await call(session, "load")  # noqa: SLF001
    else:
        await sync_to_async(session._get_session)()  # noqa: SLF001


def _look_for_twin(cls: type, name: str) -> bool:
    """Tell whether the asynchronous twin does what the method does.

    It does not where a subclass has replaced only the method.
    """
    twin = f"_a{name[1:]}" if name.startswith("_") else f"a{name}"
    for one in cls.__mro__:
        if twin in vars(one):
            return True
        if name in vars(one):
            return False
    return False


#: Asked several times in each request.
has_twin: Callable[[Any, str], bool] = functools.lru_cache(maxsize=1024)(_look_for_twin)


def _computes(cls: Any, name: str) -> bool:
    """Tell whether the method is one of ``SessionBase`` that asks a session for its entries."""
    return name.startswith("get_exp") and getattr(cls, name) is getattr(SessionBase, name)
