"""Stored sessions to start a test of an engine from."""


def filled(store_class, **data):
    """Return a session that is in the store."""
    store = store_class()
    store.update(data or {"a": 1})
    store.create()
    return store


def two(store_class, **data):
    """Return one session as two requests have it, which both have loaded it."""
    key = filled(store_class, **data).session_key
    one, other = store_class(key), store_class(key)
    one.get("a"), other.get("a")
    return one, other
