"""The shop's pages. Each change is a POST with a CSRF token and ends in a redirect."""

from django.contrib.auth.views import LoginView
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_POST, require_safe

from shop import cart
from shop.catalogue import products
from shop.context import rust_host


@require_safe
def index(request: HttpRequest) -> HttpResponse:
    context = {"products": products().values(), "cart": cart.read(request.session)}
    return render(request, "shop/index.html", context)


@require_POST
def add_to_cart(request: HttpRequest) -> HttpResponse:
    cart.add(request.session, known_sku(request))
    return redirect("index")


@require_POST
def take_from_cart(request: HttpRequest) -> HttpResponse:
    cart.take(request.session, known_sku(request))
    return redirect("index")


@require_POST
def empty_cart(request: HttpRequest) -> HttpResponse:
    cart.empty(request.session)
    return redirect("index")


class ShopLogin(LoginView):
    """Django's own login, which may also send its visitor back to the Rust server."""

    template_name = "shop/login.html"

    def get_success_url_allowed_hosts(self) -> set[str]:
        return {*super().get_success_url_allowed_hosts(), rust_host(self.request)}


def known_sku(request: HttpRequest) -> str:
    sku = request.POST.get("sku", "")
    if sku not in products():
        raise Http404("The catalogue has no such product.")
    return sku
