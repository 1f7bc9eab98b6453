"""A Django test runner that writes down how each test ended and which engine it used.

Which engine is a matter of fact, not of configuration: every session object that comes to life
during a test is noted with the classes it is made of.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import os
import platform
import sys
import time
import unittest
from pathlib import Path
from typing import Any

import django
from django.conf import settings
from django.contrib.sessions.backends.base import SessionBase
from django.test.runner import DiscoverRunner

_made: set[str] = set()

#: Most of Django's tests take less than what this leaves of a second.
_LATE_IN_A_SECOND = 0.7


def _classes(kind: type) -> str:
    names = (f"{base.__module__}.{base.__qualname__}" for base in kind.__mro__)
    return " ".join(names)


def _maker() -> str:
    """Return the module that asked for the session object now being initialised."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_name in {"noting", "__init__"}:
        frame = frame.f_back
    return str(frame.f_globals.get("__name__"))


def _note_instances_of(owner: type) -> None:
    original = owner.__init__

    @functools.wraps(original)
    def noting(self: Any, *args: Any, **kwargs: Any) -> None:
        # The model's get_decoded() makes an object of Django's to decode one row, whatever engine
        # is in use; that says nothing about the test.
        if _maker() != "django.contrib.sessions.base_session":
            _made.add(_classes(type(self)))
        original(self, *args, **kwargs)

    owner.__init__ = noting


def _wait_for_the_next_second() -> None:
    """Keep a test within one second of the clock.

    The key of a session in a signed cookie is the cookie, whose signature says the second it was
    made in. Tests that compare two keys fail with either engine when the second changes between.
    """
    passed = time.time() % 1
    if passed > _LATE_IN_A_SECOND:
        time.sleep(1 - passed)


def _result_class(  # noqa: C901 - one small method for each way a test can end
    base: type[unittest.TextTestResult],
) -> type[unittest.TextTestResult]:
    class RecordingResult(base):  # type: ignore[misc, valid-type]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.records: dict[str, dict[str, Any]] = {}

        def _end(self, test: unittest.TestCase, outcome: str, detail: str = "") -> None:
            record = self.records.setdefault(test.id(), {"outcome": outcome, "detail": detail})
            if record["outcome"] == "passed":
                record.update(outcome=outcome, detail=detail)

        def startTest(self, test: unittest.TestCase) -> None:  # noqa: N802
            _made.clear()
            if settings.SESSION_ENGINE.endswith(".signed_cookies"):
                _wait_for_the_next_second()
            super().startTest(test)

        def stopTest(self, test: unittest.TestCase) -> None:  # noqa: N802
            super().stopTest(test)
            self.records.setdefault(test.id(), {"outcome": "lost", "detail": ""})
            self.records[test.id()]["stores"] = sorted(_made)

        def addSuccess(self, test: unittest.TestCase) -> None:  # noqa: N802
            super().addSuccess(test)
            self._end(test, "passed")

        def addFailure(self, test: unittest.TestCase, err: Any) -> None:  # noqa: N802
            super().addFailure(test, err)
            self._end(test, "failed", self._exc_info_to_string(err, test))

        def addError(self, test: unittest.TestCase, err: Any) -> None:  # noqa: N802
            super().addError(test, err)
            self._end(test, "failed", self._exc_info_to_string(err, test))

        def addSubTest(self, test: unittest.TestCase, subtest: Any, err: Any) -> None:  # noqa: N802
            super().addSubTest(test, subtest, err)
            if err is not None:
                self._end(test, "failed", self._exc_info_to_string(err, subtest))

        def addSkip(self, test: unittest.TestCase, reason: str) -> None:  # noqa: N802
            super().addSkip(test, reason)
            self._end(test, "skipped", reason)

        def addExpectedFailure(self, test: unittest.TestCase, err: Any) -> None:  # noqa: N802
            super().addExpectedFailure(test, err)
            self._end(test, "failed as expected")

        def addUnexpectedSuccess(self, test: unittest.TestCase) -> None:  # noqa: N802
            super().addUnexpectedSuccess(test)
            self._end(test, "failed", "passed although a failure was expected")

    return RecordingResult


class RecordingRunner(DiscoverRunner):
    """Django's own runner, plus a report in the file that ``SUITE_REPORT`` names."""

    def get_resultclass(self) -> Any:
        return _result_class(super().get_resultclass() or unittest.TextTestResult)

    def run_suite(self, suite: Any, **kwargs: Any) -> Any:
        _note_instances_of(SessionBase)
        if importlib.util.find_spec("django_session_rs") is not None:
            from django_session_rs.backends.db import SessionStore

            if "__init__" in vars(SessionStore):
                _note_instances_of(SessionStore)
        result = super().run_suite(suite, **kwargs)
        native = sys.modules.get("django_session_rs._native")
        report = {
            "django": django.get_version(),
            "python": platform.python_version(),
            "native": getattr(native, "__file__", None),
            "tests": result.records,
        }
        Path(os.environ["SUITE_REPORT"]).write_text(json.dumps(report))
        return result
