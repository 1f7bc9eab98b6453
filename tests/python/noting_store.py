"""A session engine that notes outages, as every engine of ours does (`session.outage`)."""

from django_session_rs.backends import db
from django_session_rs.exceptions import is_outage

STEPS = ("load", "save", "create", "delete", "exists", "cycle_key")


def noting(name):
    def step(self, *args, **kwargs):
        try:
            return getattr(db.SessionStore, name)(self, *args, **kwargs)
        except Exception as error:
            if is_outage(error):
                self.outage = error
            raise

    return step


class SessionStore(db.SessionStore):
    outage = None


for name in STEPS:
    setattr(SessionStore, name, noting(name))
