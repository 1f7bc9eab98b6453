"""The cart: session entry ``cart``, a dict ``{sku: quantity}`` in the order things were added."""

from dataclasses import dataclass

from django.contrib.sessions.backends.base import SessionBase

from shop.catalogue import Product, euros, products

MOST = 999


@dataclass(frozen=True)
class Line:
    product: Product
    quantity: int

    @property
    def cents(self) -> int:
        return self.product.cents * self.quantity

    @property
    def price(self) -> str:
        return euros(self.cents)


@dataclass(frozen=True)
class Cart:
    lines: list[Line]

    @property
    def count(self) -> int:
        return sum(line.quantity for line in self.lines)

    @property
    def total(self) -> str:
        return euros(sum(line.cents for line in self.lines))


def read(session: SessionBase) -> Cart:
    """The cart as it is shown: what the catalogue no longer lists is left out."""
    known = products()
    held = session.get("cart", {})
    return Cart([Line(known[sku], quantity) for sku, quantity in held.items() if sku in known])


def add(session: SessionBase, sku: str) -> None:
    held = session.get("cart", {})
    held[sku] = min(held.get(sku, 0) + 1, MOST)
    session["cart"] = held  # assigned, so that the session knows it was modified


def take(session: SessionBase, sku: str) -> None:
    held = session.get("cart", {})
    if held.get(sku, 0) > 1:
        held[sku] -= 1
    else:
        held.pop(sku, None)
    session["cart"] = held


def empty(session: SessionBase) -> None:
    session.pop("cart", None)
