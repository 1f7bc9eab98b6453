"""Ask both languages about every recorded session, and say what became of each (``make vectors``).

The tests of both languages note each record of tests/fixtures/vectors that they compare, in the
file that ``VECTORS_RECORD`` names. This runs them and counts, per family and language:

- passed: the same answer as Django's;
- no bytes: there is nothing in the record to decode, to encode or to hash;
- not supported: another answer, or none, for a reason that docs/compatibility.md argues;
- failed: anything else, a record that no test has asked about included.
"""

from __future__ import annotations

import collections
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import zstandard

ROOT = Path(__file__).parents[1]
VECTORS = ROOT / "tests" / "fixtures" / "vectors"
VERDICTS = ("passed", "no bytes", "not supported", "failed")
# The modules of tests/rust that ask about records; those of Python are found by themselves.
MODULES = ("cache::", "codec::", "formats::", "pickle::", "session::", "signing::")
FEATURES = os.environ.get("FEATURES", "sqlite,postgres,mysql,axum,testing")
COMMANDS = {
    "Rust": [
        *("cargo", "test", "--quiet", "--features", FEATURES, "--test", "integration", "--"),
        *MODULES,
    ],
    "Python": [sys.executable, "-m", "pytest", "-q", "tests/python"],
}
# Traces of what sessions and responses do, with the data in the clear.
BEHAVIOUR = ("channels", "session_ops", "middleware")


def families() -> dict[str, list[str]]:
    """The ids of all records, per file."""
    found = {}
    for path in sorted(VECTORS.glob("*.jsonl.zst")):
        text = zstandard.ZstdDecompressor().decompressobj().decompress(path.read_bytes())
        found[path.name.removesuffix(".jsonl.zst")] = [
            json.loads(line)["id"] for line in text.splitlines()
        ]
    return found


def run(command: list[str]) -> tuple[dict[str, dict[str, str]], bool]:
    """What the tests noted, per family and record, and whether they passed."""
    noted: dict[str, dict[str, str]] = collections.defaultdict(dict)
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "record.jsonl"
        environment = {**os.environ, "VECTORS_RECORD": str(path)}
        done = subprocess.run(command, cwd=ROOT, env=environment, check=False)
        lines = path.read_text().splitlines() if path.exists() else []
    for line in lines:
        report = json.loads(line)
        for name, verdict in report["records"].items():
            noted[report["family"]][name] = worse(noted[report["family"]].get(name), verdict)
    return noted, done.returncode == 0


def worse(one: str | None, other: str) -> str:
    """Of two tests the one that failed counts, then the one that compared something."""
    order = ("failed", "not supported", "passed", "no bytes")
    verdicts = [verdict for verdict in (one, other) if verdict is not None]
    return min(verdicts, key=lambda verdict: order.index(verdict.split(":")[0]))


def count(
    family: str, ids: list[str], noted: dict[str, str], reasons: collections.Counter
) -> dict[str, int]:
    counts = dict.fromkeys(VERDICTS, 0)
    for name in ids:
        found = noted.get(name, "failed: no test asks about it")
        if family in BEHAVIOUR and noted.get(name) != "failed":
            found = "no bytes: what a session or a response does, not how it is stored"
        verdict, _, reason = found.partition(": ")
        counts[verdict] += 1
        if reason:
            reasons[verdict, reason] += 1
    return counts


def main() -> int:
    languages = sys.argv[1:] or list(COMMANDS)
    recorded = families()
    results = {language: run(COMMANDS[language]) for language in languages}
    width = max(map(len, recorded))
    print(f"\n{'':{width}} {'records':>8}", end="")
    print("".join(f"   {language + ': ' + ', '.join(VERDICTS):<46}" for language in languages))
    totals = {language: collections.Counter() for language in languages}
    reasons = {language: collections.Counter() for language in languages}
    for family, ids in recorded.items():
        row = f"{family:{width}} {len(ids):>8}"
        for language in languages:
            counts = count(family, ids, results[language][0].get(family, {}), reasons[language])
            totals[language].update(counts)
            row += "   " + "".join(f"{counts[verdict]:>11}" for verdict in VERDICTS) + "  "
        print(row.rstrip())
    row = f"{'':{width}} {sum(map(len, recorded.values())):>8}"
    for language in languages:
        row += "   " + "".join(f"{totals[language][verdict]:>11}" for verdict in VERDICTS) + "  "
    print(row.rstrip())
    for language in languages:
        print(f"\n{language}:")
        for (verdict, reason), number in sorted(reasons[language].items()):
            print(f"  {number:>5} {verdict}: {reason}")
    good = all(passed for _, passed in results.values())
    return int(not good or any(totals[language]["failed"] for language in languages))


if __name__ == "__main__":
    sys.exit(main())
