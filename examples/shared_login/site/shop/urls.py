from django.contrib.auth.views import LogoutView
from django.urls import path

from shop import accounts, views

demo_account = {"username": accounts.USERNAME, "password": accounts.PASSWORD}

urlpatterns = [
    path("", views.index, name="index"),
    path("cart/add", views.add_to_cart, name="cart-add"),
    path("cart/take", views.take_from_cart, name="cart-take"),
    path("cart/empty", views.empty_cart, name="cart-empty"),
    path("login", views.ShopLogin.as_view(extra_context={"demo": demo_account}), name="login"),
    path("logout", LogoutView.as_view(), name="logout"),
]
