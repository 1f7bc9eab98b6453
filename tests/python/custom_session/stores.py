"""Session stores as projects write them."""

from custom_session import models
from django_session_rs.backends import db


class SessionStore(db.SessionStore):
    @classmethod
    def get_model_class(cls):
        return models.AccountSession

    def create_model_instance(self, data):
        instance = super().create_model_instance(data)
        instance.account_id = data.get("account_id")
        return instance


def store_of(model):
    class Store(db.SessionStore):
        @classmethod
        def get_model_class(cls):
            return model

    Store.__qualname__ = "SessionStore"
    return Store
