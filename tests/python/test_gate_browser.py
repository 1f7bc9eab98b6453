"""A browser that logs in to Django's admin, and the pages of Rust servers that this opens.

The servers are the examples `axum`, `actix` and `chat`; cookies know no ports, so all of them have
those of the admin, as behind one proxy.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import browser as chromium
import pytest
from playwright.sync_api import Page, expect, sync_playwright

pytestmark = pytest.mark.timeout(900)  # the first test may wait for cargo

ROOT = Path(__file__).resolve().parents[2]
SITE = ROOT / "tests" / "fixtures" / "admin_site.py"
FEATURES = os.environ.get("SHARED_LOGIN_FEATURES", "actix,auth,axum,sqlite")
SERVERS = ["axum", "actix"]


class Site:
    """The Django site, with what other servers need of it."""

    def __init__(self, folder: Path) -> None:
        self.database = folder / "db.sqlite3"
        self.settings = folder / "settings.json"
        self.environment = {
            **os.environ,
            "SECRET_KEY": secrets.token_urlsafe(50),
            "SITE_DATABASE": str(self.database),
            "DATABASE_URL": f"sqlite:{self.database}",
        }
        self.run("migrate", "--verbosity=0")
        self.run("export_session_settings", f"--output={self.settings}")

    def run(self, *arguments: str) -> None:
        command = [sys.executable, str(SITE), *arguments]
        done = subprocess.run(
            command, env=self.environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr

    def change(self, user: str, **changes: object) -> None:
        self.run("change", user, json.dumps(changes))

    @contextlib.contextmanager
    def serving(self, command: list[str], log: Path, path: str, **environment: str):
        """A server on a port of its own; its address."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        command = [part.replace("PORT", str(port)) for part in command]
        environment = {**self.environment, **environment, "PORT": str(port)}
        with log.open("ab") as output:
            process = subprocess.Popen(
                command, env=environment, stdout=output, stderr=subprocess.STDOUT
            )
        url = f"http://127.0.0.1:{port}"
        try:
            for _ in range(400):
                with contextlib.suppress(OSError):
                    urllib.request.urlopen(url + path, timeout=20).close()
                    break
                assert process.poll() is None, log.read_text()
                time.sleep(0.05)
            yield url
        finally:
            process.terminate()
            process.wait(30)


def built(*examples: str) -> dict[str, Path]:
    """Where cargo puts the examples."""
    command = ["cargo", "build", f"--features={FEATURES}"]
    command += [f"--example={name}" for name in examples]
    command.append("--message-format=json-render-diagnostics")
    done = subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    messages = map(json.loads, done.stdout.splitlines())
    return {
        message["target"]["name"]: Path(message["executable"])
        for message in messages
        if message.get("executable")
    }


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return Site(tmp_path_factory.mktemp("site"))


@pytest.fixture(scope="module")
def addresses(site: Site, tmp_path_factory: pytest.TempPathFactory):
    """The address of each server by its name."""
    logs = tmp_path_factory.mktemp("logs")
    examples = built(*SERVERS, "chat")
    django = [sys.executable, str(SITE), "runserver", "--noreload", "--verbosity=0"]
    found = {}
    with contextlib.ExitStack() as stack:

        def start(name: str, command: list[str], path: str) -> None:
            found[name] = stack.enter_context(site.serving(command, logs / name, path))

        start("django", [*django, "127.0.0.1:PORT"], "/admin/login/")
        for name in SERVERS:
            start(name, [str(examples[name]), str(site.settings)], "/health")
        start("chat", [str(examples["chat"]), str(site.settings)], "/health")
        yield found


@pytest.fixture(scope="module")
def chrome():
    path = chromium.find_or_install()
    if path is None:
        tell = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
        tell("No Chromium here, and none could be installed: the browser tests did not run.")
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=path, args=chromium.ARGUMENTS)


@pytest.fixture
def page(chrome):
    context = chrome.new_context()
    with contextlib.closing(context):
        page = context.new_page()
        page.set_default_timeout(20_000)
        yield page


ANN = {
    "password": "secret",
    "is_staff": True,
    "is_active": True,
    "groups": {"viewers": ["view_group"]},
}


def log_in_to_django(page: Page, url: str, username: str, password: str) -> None:
    page.goto(f"{url}/admin/")
    page.locator("#id_username").fill(username)
    page.locator("#id_password").fill(password)
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("heading", name="Site administration")).to_be_visible()


def log_in_to_rust(page: Page, url: str, username: str, password: str) -> None:
    page.goto(f"{url}/account")
    assert page.url == f"{url}/login?next=/account"
    page.get_by_label("Name").fill(username)
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name="Log in").click()


def opens(page: Page, url: str, path: str) -> bool:
    """Whether a page of users opens; if not, it leads to the login."""
    response = page.goto(url + path)
    assert response is not None
    if page.url.startswith(f"{url}/login"):
        return False
    assert response.status in {200, 403}, response.status
    return response.status == 200


@pytest.mark.browser
@pytest.mark.parametrize("server", SERVERS)
def test_a_login_in_the_admin_opens_the_pages_of_rust(page, site, addresses, server):
    url, django = addresses[server], addresses["django"]
    site.change("ann", **ANN)
    assert not opens(page, url, "/account")
    log_in_to_django(page, django, "ann", "secret")
    assert opens(page, url, "/account")
    assert page.locator("body").inner_text() == "ann"
    assert opens(page, url, "/groups")

    # A group that is taken, at the next request.
    site.change("ann", groups={})
    assert not opens(page, url, "/groups")
    assert opens(page, url, "/account")

    # Somebody who is no longer active, and is again.
    site.change("ann", is_active=False)
    assert not opens(page, url, "/account")
    site.change("ann", is_active=True)
    assert opens(page, url, "/account")

    # Another password.
    site.change("ann", password="another")
    assert not opens(page, url, "/account")
    page.goto(f"{django}/admin/")
    expect(page.locator("#id_username")).to_be_visible()

    # Logging out of Django.
    log_in_to_django(page, django, "ann", "another")
    assert opens(page, url, "/account")
    page.goto(f"{django}/admin/")
    page.get_by_role("button", name="Log out").click()
    expect(page.get_by_text("Thanks for spending")).to_be_visible()
    assert not opens(page, url, "/account")


@pytest.mark.browser
@pytest.mark.parametrize("server", SERVERS)
def test_a_login_in_rust_opens_the_admin(page, site, addresses, server):
    url, django = addresses[server], addresses["django"]
    site.change("ann", **ANN)
    log_in_to_rust(page, url, "ann", "wrong")
    expect(page.get_by_text("That is not right.")).to_be_visible()
    log_in_to_rust(page, url, "ann", "secret")
    assert page.url == f"{url}/account"
    page.goto(f"{django}/admin/")
    expect(page.get_by_role("heading", name="Site administration")).to_be_visible()
    expect(page.locator("#user-tools")).to_contain_text("ann")

    # And logging out of Rust closes it.
    page.goto(url)
    page.get_by_role("button", name="Log out").click()
    expect(page.get_by_text("Nobody is logged in.")).to_be_visible()
    page.goto(f"{django}/admin/")
    expect(page.locator("#id_username")).to_be_visible()


@contextlib.contextmanager
def another_site(target: str):
    """A page of somebody else's with a form that posts to a server."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = f"<!doctype html><form method=post action={target}><button>Win</button></form>"
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.browser
@pytest.mark.parametrize("server", SERVERS)
def test_a_page_of_somebody_else_s_cannot_act(page, site, addresses, server):
    url = addresses[server]
    site.change("ann", **ANN)
    log_in_to_django(page, addresses["django"], "ann", "secret")
    with another_site(f"{url}/visit") as elsewhere:
        page.goto(elsewhere)
        with page.expect_response(f"{url}/visit") as response:
            page.get_by_role("button", name="Win").click()
    # The browser has sent the cookies: to it, all ports of a host are one site.
    assert "sessionid=" in response.value.request.all_headers()["cookie"]
    assert response.value.status == 403
    assert opens(page, url, "/account"), "still logged in"


@pytest.mark.browser
def test_a_socket_has_the_session_until_it_ends(page, site, addresses):
    chat, django = addresses["chat"], addresses["django"]
    site.change("ann", **ANN)
    log_in_to_django(page, django, "ann", "secret")
    page.goto(chat)
    expect(page.locator("#state")).to_have_text("open")
    for said in ("hello", "again"):
        page.get_by_label("Say").fill(said)
        page.get_by_label("Say").press("Enter")
    expect(page.locator("li")).to_have_text(["ann (1): hello", "ann (2): again"])

    # What the socket has saved is in the session, and the login of before too.
    other = page.context.new_page()
    other.goto(f"{django}/admin/")
    other.get_by_role("button", name="Log out").click()
    expect(other.get_by_text("Thanks for spending")).to_be_visible()
    expect(page.locator("#state")).to_have_text("closed 4401")
    answer = page.request.get(chat, max_redirects=0)
    assert (answer.status, answer.headers["location"]) == (302, "/login?next=/")


OPEN_SOCKET = """
url => new Promise(opened => {
  window.lines = [];
  window.socket = new WebSocket(url);
  socket.onopen = opened;
  socket.onmessage = event => lines.push(event.data);
  socket.onclose = event => lines.push("closed " + event.code);
})
"""


@pytest.mark.browser
@pytest.mark.parametrize("end", ["logout", "password"])
def test_a_socket_of_actix_does_too(page, site, addresses, end):
    url, django = addresses["actix"], addresses["django"]
    site.change("ann", **ANN)
    log_in_to_django(page, django, "ann", "secret")
    assert opens(page, url, "/account")
    page.evaluate(OPEN_SOCKET, url.replace("http", "ws") + "/socket")
    page.evaluate("socket.send('hello')")
    page.wait_for_function("lines.length == 1")
    page.evaluate("socket.send('again')")
    page.wait_for_function("lines.length == 2")
    if end == "logout":
        other = page.context.new_page()
        other.goto(f"{django}/admin/")
        other.get_by_role("button", name="Log out").click()
        expect(other.get_by_text("Thanks for spending")).to_be_visible()
    else:
        site.change("ann", password="another")
    page.wait_for_function("lines.length == 3")
    said = ["ann (1): hello", "ann (2): again", "closed 4401"]
    assert page.evaluate("lines") == said


@pytest.mark.browser
@pytest.mark.parametrize("server", ["chat", "actix"])
def test_a_page_of_somebody_else_s_opens_no_socket(page, site, addresses, server):
    site.change("ann", **ANN)
    log_in_to_django(page, addresses["django"], "ann", "secret")
    socket_url = addresses[server].replace("http", "ws") + "/socket"
    with another_site("") as elsewhere:
        page.goto(elsewhere)
        closed = page.evaluate(
            "url => new Promise(done => {"
            "const socket = new WebSocket(url);"
            "socket.onopen = () => done('open');"
            "socket.onerror = () => done('refused'); })",
            socket_url,
        )
    assert closed == "refused"
