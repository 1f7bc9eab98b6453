"""A WebSocket client over real daphne and uvicorn processes."""

import contextlib
import http.client
import json
import os
import secrets
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from django.conf import settings
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

HERE = Path(__file__).parent
COMMANDS = {
    "daphne": ["daphne", "-b", "127.0.0.1", "-p"],
    "uvicorn": ["uvicorn", "--host", "127.0.0.1", "--log-level", "warning", "--port"],
}


class Site:
    """One site; the server behind it can be started again with other keys."""

    def __init__(self, server, engine, database, directory):
        self.server = server
        self.log = directory / "server.log"
        self.environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(
                [str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])]
            ),
            "SITE_DATABASE": json.dumps(database),
            "SITE_ENGINE": f"django_session_rs.backends.{engine}",
            "SITE_FALLBACKS": "[]",
            "SITE_SECRET_KEY": secrets.token_urlsafe(50),
        }
        subprocess.run(
            [sys.executable, "-m", "socket_site"], env=self.environment, check=True, timeout=60
        )

    @contextlib.contextmanager
    def running(self):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        command = [*COMMANDS[self.server], str(self.port), "socket_site:application"]
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", *command],
                env=self.environment,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        try:
            self.wait_for(process)
            yield self
        finally:
            process.terminate()
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def wait_for(self, process):
        for _ in range(600):
            assert process.poll() is None, self.log.read_text()
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port)):
                return
            time.sleep(0.05)
        raise AssertionError(self.log.read_text())

    def rotate(self):
        old = self.environment["SITE_SECRET_KEY"]
        self.environment["SITE_FALLBACKS"] = json.dumps([old])
        self.environment["SITE_SECRET_KEY"] = secrets.token_urlsafe(50)

    def get(self, path, cookie=""):
        """The text of the answer, and the session key of its cookie."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        connection.request("GET", path, headers={"Cookie": cookie} if cookie else {})
        response = connection.getresponse()
        text = response.read().decode()
        assert response.status == 200, (text, self.log.read_text())
        connection.close()
        cookie = (response.getheader("Set-Cookie") or "").partition(";")[0]
        return text, cookie

    def socket(self, cookie):
        return connect(
            f"ws://127.0.0.1:{self.port}/",
            additional_headers={"Cookie": cookie} if cookie else {},
            open_timeout=30,
        )


def say(client, text):
    client.send(text)
    return client.recv(timeout=30)


def code_of_close(client):
    with pytest.raises(ConnectionClosed) as caught:
        client.recv(timeout=30)
    return caught.value.rcvd.code


@pytest.fixture(params=["db", "native"])
def engine(request):
    """The `db` engine on SQLite, and the native one on PostgreSQL."""
    return request.param


@pytest.fixture(params=COMMANDS)
def site(request, engine, databases, tmp_path):
    if engine == "native" and "postgres" not in databases:
        pytest.skip("TEST_POSTGRES_URL is not set")
    if engine == "native":
        options = settings.DATABASES["postgres"]
        database = {
            name: options[name] for name in ("ENGINE", "NAME", "USER", "PASSWORD", "HOST", "PORT")
        }
    else:
        database = {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": str(tmp_path / "site.sqlite3"),
            "OPTIONS": {"timeout": 10},
        }
    return Site(request.param, engine, database, tmp_path)


def test_a_socket_lives_as_long_as_its_session(site):
    """Login by HTTP, an entry set by the socket, keys rotated, logout in another tab."""
    with site.running():
        with site.socket("") as client:
            assert say(client, "who") == "AnonymousUser none"
        name, cookie = site.get("/login")
        assert name == "ada"
        with site.socket(cookie) as client:
            assert say(client, "who") == "ada none"
            assert site.get("/who", cookie) == ("ada none", "")
            assert say(client, "blue") == "ada blue"
            assert site.get("/who", cookie) == ("ada blue", "")

    site.rotate()
    with site.running():
        with site.socket(cookie) as client:
            # The socket leaves it to the next HTTP request to move the session on.
            assert say(client, "who") == "ada blue"
            text, new = site.get("/who", cookie)
            assert text == "ada blue"
            assert new not in {"", cookie}
            assert code_of_close(client) == 4401
        with site.socket(new) as client, site.socket(new) as other:
            assert say(client, "who") == "ada blue"
            assert say(other, "green") == "ada green"
            text, deleted = site.get("/logout", new)
            assert deleted == 'sessionid=""'
            assert code_of_close(client) == 4401
            assert code_of_close(other) == 4401
        with site.socket(new) as client:
            assert say(client, "who") == "AnonymousUser none"
    assert "Traceback" not in site.log.read_text()
