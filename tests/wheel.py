#!/usr/bin/env python3
"""Install a wheel as a site would, and switch a new project to it by the words of the README.

    python tests/wheel.py FOLDER

Of the wheels in FOLDER the one is taken that pip takes. The virtual environment is new, and nothing
else is on PATH: no compiler, no cargo. The project is what ``django-admin startproject`` makes; the
line that README.md tells to add to its settings is added, and a session goes to its table and back,
through the middleware, by a request.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"
CHECK = """
import django
django.setup()
from django.conf import settings
from django.contrib.auth.models import User
from django.contrib.sessions.backends.db import SessionStore as DjangoStore
from django.test import Client
user = User.objects.create_superuser("admin", password="secret")
client = Client()
client.force_login(user)
answer = client.get("/admin/", headers={"host": "localhost"})
assert answer.status_code == 200, answer
key = client.cookies["sessionid"].value
assert DjangoStore(key)["_auth_user_id"] == str(user.pk)
print(settings.SESSION_ENGINE, type(client.session).__module__)
"""


def settings_of_readme() -> list[str]:
    """Return the settings that the README names for a site."""
    found = re.findall(
        r'^SESSION_ENGINE = "django_session_rs\.[^"]*"$', README.read_text(), re.MULTILINE
    )
    if not found:
        sys.exit("README.md does not say how to switch a site")
    return found


def main() -> None:
    wheels = Path(sys.argv[1]).resolve()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        venv.create(place / "venv", with_pip=True)
        programs = place / "venv" / ("Scripts" if os.name == "nt" else "bin")
        environment = {
            **{name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
            "PATH": str(programs),
            "DJANGO_SETTINGS_MODULE": "site_of_mine.settings",
        }

        def run(*words: str | Path) -> str:
            command = [str(word) for word in words]
            done = subprocess.run(
                command, cwd=place, env=environment, capture_output=True, text=True, check=False
            )
            if done.returncode:
                sys.exit(f"{' '.join(command)}:\n{done.stdout}{done.stderr}")
            return done.stdout.strip()

        python = programs / "python"
        options = ["--quiet", "--disable-pip-version-check", "--only-binary", "django-session-rs"]
        find = ["--find-links", wheels, "--pre"]
        run(python, "-m", "pip", "install", *options, *find, "django-session-rs")
        run(python, "-m", "django", "startproject", "site_of_mine", ".")
        settings = place / "site_of_mine" / "settings.py"
        original = settings.read_text()
        for line in settings_of_readme():
            settings.write_text(f"{original}\n{line}\n")
            database = place / "db.sqlite3"
            database.unlink(missing_ok=True)
            run(python, "manage.py", "migrate", "--verbosity", "0")
            print(run(python, "-W", "error", "-c", CHECK))
            run(python, "manage.py", "check")
            run(python, "manage.py", "clearsessions")


if __name__ == "__main__":
    main()
