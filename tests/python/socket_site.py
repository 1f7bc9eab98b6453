# ruff: noqa: E402 - Django has to be set up before it is imported from
"""A Django site with a WebSocket, for daphne and uvicorn; the environment has its settings.

``python -m socket_site`` makes its tables and its user.
"""

import json
import os
import sys

from django.conf import settings

settings.configure(
    SECRET_KEY=os.environ["SITE_SECRET_KEY"],
    SECRET_KEY_FALLBACKS=json.loads(os.environ["SITE_FALLBACKS"]),
    DATABASES={"default": json.loads(os.environ["SITE_DATABASE"])},
    INSTALLED_APPS=[
        "django.contrib.auth",
        "django.contrib.contenttypes",
        "django.contrib.sessions",
        "django_session_rs",
    ],
    MIDDLEWARE=[
        "django_session_rs.middleware.SessionMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
    ],
    SESSION_ENGINE=os.environ["SITE_ENGINE"],
    PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"],
    ROOT_URLCONF=__name__,
    ALLOWED_HOSTS=["127.0.0.1"],
    USE_TZ=True,
)

from django.core.asgi import get_asgi_application

django_application = get_asgi_application()

from channels.generic.websocket import AsyncWebsocketConsumer
from channels.routing import ProtocolTypeRouter
from django.contrib import auth
from django.http import HttpResponse
from django.urls import path

from django_session_rs.channels import AuthMiddlewareStack
from django_session_rs.twins import call


def login(request):
    user = auth.authenticate(request, username="ada", password="a password")
    auth.login(request, user)
    return HttpResponse(user.username)


def logout(request):
    auth.logout(request)
    return HttpResponse()


def who(request):
    color = request.session.get("color", "none")
    return HttpResponse(f"{request.user} {color}")


class Consumer(AsyncWebsocketConsumer):
    async def receive(self, text_data=None, bytes_data=None):
        session = self.scope["session"]
        if text_data != "who":
            session["color"] = text_data
            await call(session, "save")
        await self.send(text_data=f"{self.scope['user']} {session.get('color', 'none')}")


urlpatterns = [path("login", login), path("logout", logout), path("who", who)]
application = ProtocolTypeRouter(
    {
        "http": django_application,
        "websocket": AuthMiddlewareStack(Consumer.as_asgi(), revalidate=0.2),
    }
)


if __name__ == "__main__":
    from django.contrib.auth.models import User
    from django.core.management import call_command

    call_command("migrate", run_syncdb=True, verbosity=0)
    User.objects.filter(username="ada").delete()
    User.objects.create_user("ada", password="a password")
    sys.exit()
