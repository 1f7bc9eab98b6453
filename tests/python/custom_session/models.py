"""Session models as projects write them."""

from datetime import timedelta
from typing import ClassVar

from django.contrib.sessions.base_session import AbstractBaseSession, BaseSessionManager
from django.db import models
from django.utils import timezone


class AccountSession(AbstractBaseSession):
    """One column more."""

    account_id = models.IntegerField(null=True, db_index=True, unique=True)
    changed = models.DateTimeField(auto_now=True)

    class Meta:
        app_label = "custom_session"

    @classmethod
    def get_session_store_class(cls):
        from custom_session.stores import SessionStore

        return SessionStore


class RenamedSession(AbstractBaseSession):
    """Other names in the database."""

    session_key = models.CharField("key", max_length=40, primary_key=True, db_column="Key Of It")
    session_data = models.TextField(db_column="da ta")
    expire_date = models.DateTimeField(db_index=True, db_column="until")

    class Meta:
        app_label = "custom_session"
        db_table = "odd table"

    objects = BaseSessionManager()


class LoudSession(AbstractBaseSession):
    """Its own `save` and `delete`."""

    saved: ClassVar[list] = []
    deleted: ClassVar[list] = []

    class Meta:
        app_label = "custom_session"

    def save(self, *args, **kwargs):
        self.saved.append(self.session_key)
        super().save(*args, **kwargs)

    def delete(self, *args, **kwargs):
        self.deleted.append(self.session_key)
        return super().delete(*args, **kwargs)


class LiveManager(BaseSessionManager):
    def get_queryset(self):
        return super().get_queryset().filter(hidden=False)


class HiddenSession(AbstractBaseSession):
    """Its own queryset."""

    hidden = models.BooleanField(default=False)
    objects = LiveManager()

    class Meta:
        app_label = "custom_session"


class ParentSession(AbstractBaseSession):
    class Meta:
        app_label = "custom_session"


class ChildSession(ParentSession):
    """Two tables."""

    note = models.CharField(max_length=10, default="note")

    class Meta:
        app_label = "custom_session"


class VisitedSession(AbstractBaseSession):
    """Rows of another table belong to it, of which it knows nothing."""

    class Meta:
        app_label = "custom_session"


class Visit(models.Model):  # noqa: DJ008 - nobody shows it
    session = models.ForeignKey(VisitedSession, models.CASCADE, related_name="+")

    class Meta:
        app_label = "custom_session"


class PickyManager(BaseSessionManager):
    def get(self, *args, **kwargs):
        return super().get(*args, refused=False, **kwargs)


class PickySession(AbstractBaseSession):
    """Its own question for one row."""

    refused = models.BooleanField(default=False)
    objects = PickyManager()

    class Meta:
        app_label = "custom_session"


class SoonField(models.DateTimeField):
    """A date that is an hour from now at most."""

    def pre_save(self, model_instance, add):
        latest = timezone.now() + timedelta(hours=1)
        return min(super().pre_save(model_instance, add), latest)


class SoonSession(AbstractBaseSession):
    """Django's columns, one of them with a field of its own."""

    expire_date = SoonField(db_index=True)

    class Meta:
        app_label = "custom_session"
