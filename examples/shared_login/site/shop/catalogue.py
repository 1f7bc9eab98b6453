"""What the shop sells: one JSON file, read by both servers."""

import json
from dataclasses import dataclass
from functools import cache

from django.conf import settings


@dataclass(frozen=True)
class Product:
    sku: str
    name: str
    note: str
    cents: int
    tint: str

    @property
    def price(self) -> str:
        return euros(self.cents)


@cache
def products() -> dict[str, Product]:
    entries = json.loads(settings.CATALOGUE.read_text(encoding="utf-8"))
    return {entry["sku"]: Product(**entry) for entry in entries}


def euros(cents: int) -> str:
    return f"€{cents // 100}.{cents % 100:02}"
