"""The query for a user by its primary key, compiled once instead of for every request.

What ``UserModel._default_manager.get(pk=…)`` asks is the same text each time. Django builds it
anew, which takes longer than a database on the same machine takes to answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django.core.exceptions import EmptyResultSet
from django.db import connections
from django.db.models import IntegerField, Manager, QuerySet
from django.db.models.query import MAX_GET_RESULTS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from django.db.models import Field, Model

__all__ = ["UserQuery", "is_plain", "query_for"]


@dataclass(frozen=True)
class UserQuery:
    """``Model._default_manager.get(pk=…)`` for one model and one kind of database."""

    model: type[Model]
    sql: str
    names: list[str]
    """The attributes that the columns are, in their order."""
    fields: list[Any]
    converters: list[tuple[int, list[Any], Any]]
    pk: Field[Any, Any]
    smallest: int | None
    largest: int | None
    fetch_mode: Any
    """How the user fetches what it is asked for later, since Django 6.1."""

    def parameter(self, value: Any, connection: Any) -> Any:
        """Return what stands for a primary key in the query."""
        prepared = self.pk.get_prep_value(value)
        return self.pk.get_db_prep_value(prepared, connection, prepared=True)

    def is_beyond(self, value: Any) -> bool:
        """Tell whether the column cannot hold this primary key."""
        too_small = self.smallest is not None and value < self.smallest
        return too_small or (self.largest is not None and value > self.largest)

    def find(self, value: Any, using: str) -> Model | None:
        """Return the user with this primary key, or ``None`` if there is none."""
        if self.is_beyond(value):
            return None
        connection = connections[using]
        with connection.cursor() as cursor:
            cursor.execute(self.sql, (self.parameter(value, connection),))
            row = cursor.fetchone()
        return None if row is None else self.user(row, using, connection)

    def user(self, row: Sequence[Any], using: str, connection: Any) -> Model:
        """Return what the model makes of a row as the driver gives it."""
        if self.converters:
            row = list(row)
            for position, functions, expression in self.converters:
                for function in functions:
                    row[position] = function(row[position], expression, connection)
        user: Model = self.model.from_db(using, self.names, row)
        if self.fetch_mode is not None:
            user._state.fetch_mode = self.fetch_mode  # noqa: SLF001 - as `QuerySet` does
        return user


_queries: dict[tuple[type[Model], type, type], UserQuery | None] = {}


def query_for(model: type[Model], using: str, value: Any) -> UserQuery | None:
    """Return the query for users of a model, or ``None`` if it is not always the same.

    It is if the model's manager does nothing of its own. ``value`` is any primary key.
    """
    kind = (model, type(model._default_manager), type(connections[using]))
    try:
        return _queries[kind]
    except KeyError:
        found = _compiled(model, using, value)
        # None may be for this value alone.
        if found is not None or not is_plain(model):
            _queries[kind] = found
        return found


def is_plain(model: type[Model]) -> bool:
    """Tell whether the model's manager does nothing of its own."""
    manager: Any = model._default_manager
    names = ("get", "get_queryset", "filter", "all")
    return (
        all(getattr(type(manager), name) is getattr(Manager, name) for name in names)
        and manager._queryset_class is QuerySet  # noqa: SLF001
        and not model._meta.pk.is_relation
    )


def _compiled(model: type[Model], using: str, value: Any) -> UserQuery | None:
    if not is_plain(model):
        return None
    connection = connections[using]
    queryset: Any = model._default_manager.using(using).filter(pk=value).order_by()
    fetch_mode = getattr(queryset, "_fetch_mode", None)
    query = queryset.query
    query.set_limits(high=MAX_GET_RESULTS)
    compiler = query.get_compiler(using=using)
    try:
        sql, parameters = compiler.as_sql()
    except EmptyResultSet:
        return None
    expressions = [selected[0] for selected in compiler.select]
    pk = model._meta.pk
    smallest = largest = None
    if isinstance(pk, IntegerField):
        smallest, largest = connection.ops.integer_field_range(pk.get_internal_type())
    found = UserQuery(
        model=compiler.klass_info["model"],
        sql=sql,
        names=[expression.target.attname for expression in expressions],
        fields=[expression.target for expression in expressions],
        converters=[
            (position, functions, expression)
            for position, (functions, expression) in compiler.get_converters(expressions).items()
        ],
        pk=pk,
        smallest=smallest,
        largest=largest,
        fetch_mode=fetch_mode,
    )
    is_one_value = (
        tuple(parameters) == (found.parameter(value, connection),)
        and compiler.klass_info["select_fields"] == list(range(len(expressions)))
        and not compiler.annotation_col_map
        # One of many that are found together would know the others.
        and not getattr(fetch_mode, "track_peers", False)
    )
    return found if is_one_value else None
