"""Saved inputs of the fuzz targets.

corpus/TARGET.jsonl.zst holds one input per line, in base64. ``unpack`` makes of it the folder
that cargo-fuzz works in, ``seed`` adds what is recorded in tests/fixtures/vectors, and ``pack``
saves the folder, best after ``cargo fuzz cmin --fuzz-dir tests/fuzz TARGET``. ``make fuzz``
unpacks and runs every target; ordinary tests run what is saved, and changes of it
(tests/rust/fuzz.rs).
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import sys
import zlib
from pathlib import Path

import zstandard

HERE = Path(__file__).parent
VECTORS = HERE.parent / "fixtures" / "vectors"
TARGETS = re.findall(r'^name = "(\w+)"$', (HERE / "Cargo.toml").read_text(), flags=re.MULTILINE)
# Longer seeds slow every run down and say nothing new.
LONGEST = 4096


def records(family: str) -> list[dict]:
    compressed = (VECTORS / f"{family}.jsonl.zst").read_bytes()
    text = zstandard.ZstdDecompressor().decompressobj().decompress(compressed)
    return [json.loads(line) for line in text.splitlines()]


def stored(*families: str) -> list[str]:
    """Every session that is recorded as text."""
    found = []
    for family in families:
        for record in records(family):
            value = record.get("cookie") or record.get("stored")
            value = value["value"] if isinstance(value, dict) else value
            found += [value] if value else []
    return found


def signed() -> list[str]:
    """What stands before the signatures of today's form."""
    texts = stored("modern_json", "modern_pickle", "negative", "signed_cookies")
    return [text.rsplit(":", 2)[0] for text in texts]


def payloads() -> list[bytes]:
    """What serializers wrote."""
    found = []
    for text in signed():
        try:
            data = base64.urlsafe_b64decode(text.removeprefix(".").encode() + b"==")
            found.append(zlib.decompress(data) if text.startswith(".") else data)
        except (ValueError, zlib.error):
            continue
    return found


def pickles() -> list[bytes]:
    texts = [record.get("pickle_b64") for record in records("pickle_types")]
    return [base64.b64decode(text) for text in texts if text]


def dates() -> list[str]:
    return [
        "2031-05-06",
        "2031-05-06T07:08:09.123456+05:30",
        "20310506T070809Z",
        "2031-W19-2T07",
        "0001-01-01T00:00:00+23:59:59.999999",
        "9999-12-31 23:59:59,999999",
    ]


def tokens() -> list[str]:
    return ["bxp7o0-81fbe851a892f17e549d0489c9f12ecf", "hello:1r31eq:teV89CPRJD7FXAjxX_d6mlLTzEM"]


def cache_values() -> list[bytes]:
    """Each value behind every byte that chooses another backend (`cache_codec` in checks.rs)."""
    found = []
    for record in records("cache"):
        if "stored" in record and record["stored"]["encoding"] == "base64":
            value = base64.b64decode(record["stored"]["value"])
            found += [bytes([choice]) + value for choice in range(22)]
    return found


SEEDS = {
    "cache_value": cache_values,
    "dates": dates,
    "decode": lambda: stored("antique", "legacy", "modern_json", "negative"),
    "deflate": payloads,
    "formats": lambda: payloads() + pickles(),
    "json": lambda: [data for data in payloads() if data.startswith(b"{")],
    "pickle": pickles,
    "signed": signed,
    "signing": lambda: tokens() + stored("signed_cookies"),
}


def archive(target: str) -> Path:
    return HERE / "corpus" / f"{target}.jsonl.zst"


def add(target: str, inputs: list) -> None:
    folder = HERE / "corpus" / target
    folder.mkdir(parents=True, exist_ok=True)
    for given in inputs:
        data = given.encode("utf-8", "surrogatepass") if isinstance(given, str) else given
        if len(data) <= LONGEST:
            name = hashlib.sha1(data, usedforsecurity=False).hexdigest()
            (folder / name).write_bytes(data)


def seed(target: str) -> None:
    add(target, SEEDS[target]())


def unpack(target: str) -> None:
    if archive(target).exists():
        text = zstandard.ZstdDecompressor().decompress(archive(target).read_bytes())
        add(target, [base64.b64decode(json.loads(line)) for line in text.splitlines()])


def pack(target: str) -> None:
    inputs = sorted({path.read_bytes() for path in (HERE / "corpus" / target).iterdir()})
    # In this order inputs that are alike stand side by side, which compresses well.
    lines = "".join(json.dumps(base64.b64encode(data).decode()) + "\n" for data in inputs)
    archive(target).write_bytes(zstandard.ZstdCompressor(level=19).compress(lines.encode()))


def main() -> None:
    actions = {"pack": pack, "seed": seed, "unpack": unpack}
    if len(sys.argv) < 2 or sys.argv[1] not in actions:
        sys.exit(f"usage: corpus.py {'|'.join(actions)} [TARGET...]")
    for target in sys.argv[2:] or TARGETS:
        actions[sys.argv[1]](target)


if __name__ == "__main__":
    main()
