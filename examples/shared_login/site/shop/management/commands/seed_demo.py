from typing import Any

from django.contrib.auth import get_user_model
from django.core.management.base import BaseCommand

from shop.accounts import PASSWORD, USERNAME


class Command(BaseCommand):
    help = "Creates the demo account, or leaves it as it is."

    def handle(self, **_: Any) -> None:
        users = get_user_model().objects
        if users.filter(username=USERNAME).exists():
            self.stdout.write(f"Account {USERNAME} is there already.")
            return
        users.create_user(username=USERNAME, password=PASSWORD)
        self.stdout.write(f"Account {USERNAME} created.")
