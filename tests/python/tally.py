"""What became of each recorded session, for ``make vectors`` (tests/vectors_table.py).

A test with a parameter called ``record`` needs nothing of this: whether it passes is noted. One
that asks about several records goes through them by ``each``, or asks ``with asked(record):``, and
is marked ``vectors``, so that it is run. What is not compared is named by ``not_supported`` or
``no_bytes``, with the reason.
"""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path

VARIABLE = "VECTORS_RECORD"
NOTES: dict[tuple[str, str], str] = {}
# Of two tests the first of these counts.
ORDER = ("failed", "not supported", "passed", "no bytes")


def note(record: dict, verdict: str) -> None:
    key = (record["family"], record["id"])
    verdicts = [verdict, *filter(None, [NOTES.get(key)])]
    NOTES[key] = min(verdicts, key=lambda verdict: ORDER.index(verdict.split(":")[0]))


def not_supported(record: dict, reason: str) -> None:
    """Note another answer than Django's, argued in docs/compatibility.md."""
    note(record, f"not supported: {reason}")


def no_bytes(record: dict, reason: str) -> None:
    """Note that there is nothing in the record to decode, to encode or to hash."""
    note(record, f"no bytes: {reason}")


@contextlib.contextmanager
def asked(record: dict):
    """Note whether what is done with the record inside succeeds."""
    try:
        yield
    except BaseException:
        note(record, "failed")
        raise
    note(record, "passed")


def each(records):
    """Go through records, and note for each whether the body of the loop got to its end."""
    for record in records:
        try:
            yield record
        except GeneratorExit:
            note(record, "failed")
            raise
        note(record, "passed")


def record_of(item) -> dict | None:
    """Return the record that a test is about."""
    record = item.callspec.params.get("record") if hasattr(item, "callspec") else None
    return record if isinstance(record, dict) and "family" in record else None


def write() -> None:
    """Append the notes to the file that ``make vectors`` reads, if it asks for them."""
    if not os.environ.get(VARIABLE):
        return
    families: dict[str, dict[str, str]] = {}
    for (family, name), verdict in NOTES.items():
        families.setdefault(family, {})[name] = verdict
    with Path(os.environ[VARIABLE]).open("a", encoding="utf-8") as file:
        for family, noted in families.items():
            file.write(json.dumps({"family": family, "records": noted}) + "\n")
