"""The demo, used as people use it: one login and one cart, seen from both servers."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import browser as chromium
import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, Request, expect, sync_playwright
from visitor import Visitor, origin

pytestmark = pytest.mark.timeout(600)  # the first test may wait for cargo

ROOT = Path(__file__).resolve().parents[2]
RUN = ROOT / "examples" / "shared_login" / "run.py"
DOCS = ROOT / "docs"
ANONYMOUS = "Not logged in"


@dataclass(frozen=True)
class Demo:
    django: str
    rust: str
    username: str
    password: str
    database: str
    pid: int


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    command = [sys.executable, str(RUN), "--json", "--django-port=0", "--rust-port=0"]
    command.append(f"--dir={tmp_path_factory.mktemp('demo')}")
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line, "run.py ended before both servers answered; its output says why"
            yield Demo(pid=process.pid, **json.loads(line))
        finally:
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=30) == 0


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    path = chromium.find_or_install()
    if path is None:
        tell = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
        tell("No Chromium here, and none could be installed: the browser tests did not run.")
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=path, args=chromium.ARGUMENTS)


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page of a new visitor; complaints of the browser fail the test."""
    complaints: list[str] = []

    def hear(message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"}:
            complaints.append(message.text)

    def miss(request: Request) -> None:
        if request.failure != "net::ERR_ABORTED":  # the visitor was faster than the page
            complaints.append(f"{request.url} {request.failure}")

    context = browser.new_context(viewport={"width": 1280, "height": 860}, color_scheme="light")
    with contextlib.closing(context):
        page = context.new_page()
        page.set_default_timeout(10_000)
        page.on("console", hear)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("requestfailed", miss)
        yield page
    assert complaints == []


@pytest.fixture
def visitor(demo: Demo) -> Visitor:
    visitor = Visitor()
    visitor.log_in(demo.django, demo.username, demo.password)
    return visitor


def log_in(page: Page, demo: Demo) -> None:
    page.get_by_role("link", name="Log in").click()
    page.get_by_label("Username").fill(demo.username)
    page.get_by_label("Password").fill(demo.password)
    page.get_by_role("button", name="Log in").click()


def add(page: Page, product: str) -> None:
    page.get_by_role("button", name=f"Add to cart: {product}").click()


def cart(page: Page) -> list[tuple[str, str]]:
    lines = page.locator(".line").all()
    return [
        (line.get_attribute("data-sku") or "", line.get_attribute("data-quantity") or "")
        for line in lines
    ]


def go_to(page: Page, server: str) -> None:
    """Through the page's own link, to a page that says which server made it."""
    page.get_by_role("navigation", name="Server").get_by_role("link", name=server).click()
    expect(page.locator(".rendered")).to_contain_text(f"Rendered by {server}")


@pytest.mark.browser
def test_login_in_django_is_a_login_in_rust(page: Page, demo: Demo) -> None:
    page.goto(demo.rust)
    expect(page.locator("#who")).to_have_text(ANONYMOUS)

    log_in(page, demo)

    assert page.url == demo.rust
    expect(page.locator("#who")).to_have_text(demo.username)
    go_to(page, "Django")
    expect(page.locator("#who")).to_have_text(demo.username)


@pytest.mark.browser
def test_cart_is_the_same_from_both_sides(page: Page, demo: Demo) -> None:
    page.goto(demo.django)
    log_in(page, demo)

    go_to(page, "Rust")
    add(page, "Heather honey")
    go_to(page, "Django")
    assert cart(page) == [("honey", "1")]

    add(page, "Everyday cup")
    page.get_by_role("button", name="One more: Everyday cup").click()
    go_to(page, "Rust")
    assert cart(page) == [("honey", "1"), ("cup", "2")]

    page.get_by_role("button", name="One fewer: Heather honey").click()
    add(page, "Stovetop kettle")
    go_to(page, "Django")
    assert cart(page) == [("cup", "2"), ("kettle", "1")]
    expect(page.locator(".total")).to_contain_text("€71.00")

    go_to(page, "Rust")
    expect(page.locator(".total")).to_contain_text("€71.00")
    page.get_by_role("button", name="Empty the cart").click()
    go_to(page, "Django")
    assert cart(page) == []


@pytest.mark.browser
def test_cart_of_an_anonymous_visitor_survives_the_login(page: Page, demo: Demo) -> None:
    page.goto(demo.rust)
    add(page, "Round teapot")
    log_in(page, demo)
    expect(page.locator("#who")).to_have_text(demo.username)
    assert cart(page) == [("teapot", "1")]


@pytest.mark.browser
@pytest.mark.parametrize(("here", "there"), [("Django", "Rust"), ("Rust", "Django")])
def test_logout_on_one_side_is_a_logout_on_the_other(
    page: Page, demo: Demo, here: str, there: str
) -> None:
    page.goto(demo.django)
    log_in(page, demo)
    go_to(page, "Rust")
    add(page, "Smoked black tea")
    if here == "Django":
        go_to(page, here)

    page.get_by_role("button", name="Log out").click()

    expect(page.locator("#who")).to_have_text(ANONYMOUS)
    go_to(page, there)
    expect(page.locator("#who")).to_have_text(ANONYMOUS)
    assert cart(page) == []


@pytest.mark.browser
def test_wrong_password_is_told_and_logs_nobody_in(page: Page, demo: Demo) -> None:
    page.goto(f"{demo.django}login")
    page.get_by_label("Username").fill(demo.username)
    page.get_by_label("Password").fill("not this one")
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("alert")).to_contain_text("correct username and password")
    go_to(page, "Rust")
    expect(page.locator("#who")).to_have_text(ANONYMOUS)


@pytest.mark.browser
@pytest.mark.parametrize("width", [320, 390, 768, 1280])
def test_pages_fit_their_width(page: Page, demo: Demo, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    page.goto(demo.rust)
    log_in(page, demo)
    for product in ("Three-minute glass", "Stovetop kettle"):
        add(page, product)
    for server in ("Django", "Rust"):
        go_to(page, server)
        assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.browser
@pytest.mark.skipif("UPDATE_SCREENSHOTS" not in os.environ, reason="pictures only on request")
def test_takes_the_pictures_of_the_documentation(page: Page, demo: Demo) -> None:
    page.goto(demo.django)
    log_in(page, demo)
    for product in ("Stovetop kettle", "Heather honey", "Everyday cup", "Everyday cup"):
        add(page, product)
    for server in ("Django", "Rust"):
        go_to(page, server)
        page.screenshot(path=DOCS / f"shared_login_{server.lower()}.png", full_page=True)


def test_rust_refuses_changes_from_other_origins(demo: Demo, visitor: Visitor) -> None:
    """Django's own pages included: to `SameSite` they are the same site, to Rust they are not."""
    for sender in (origin(demo.django), "http://evil.example", "null", None):
        answer = visitor.post_from(sender, demo.rust, "/cart/add", sku="cup")
        assert answer.status == 403
    assert visitor.get(demo.rust).cart == {}


def test_rust_answers_to_no_foreign_name(demo: Demo, visitor: Visitor) -> None:
    assert visitor.get(demo.rust, Host="evil.example").status == 421


def test_products_that_are_not_sold_are_not_found(demo: Demo, visitor: Visitor) -> None:
    for server in (demo.django, demo.rust):
        answer = visitor.post_from(origin(server), server, "/cart/add", sku='"><script>')
        assert answer.status == 404
        assert "<script>" not in answer.text


@pytest.mark.parametrize(
    "change",
    ["is_active = 0", "password = 'changed'", "id = 4711"],
    ids=["deactivated", "other password", "gone"],
)
def test_both_sides_stop_knowing_an_account_that_changed(
    demo: Demo, visitor: Visitor, change: str
) -> None:
    with contextlib.closing(sqlite3.connect(demo.database)) as database:
        (before,) = database.execute("SELECT id, password, is_active FROM auth_user").fetchall()
        try:
            for server in (demo.django, demo.rust):
                assert visitor.get(server).who == demo.username
            with database:
                database.execute(f"UPDATE auth_user SET {change}")
            # Rust first: Django empties the session when the password no longer fits.
            for server in (demo.rust, demo.django):
                assert visitor.get(server).who == ANONYMOUS
        finally:
            with database:
                database.execute(
                    "UPDATE auth_user SET (id, password, is_active) = (?, ?, ?)", before
                )


def test_a_page_that_only_reads_leaves_no_session_behind(demo: Demo) -> None:
    visitor = Visitor()
    for server in (demo.django, demo.rust):
        assert visitor.get(server).who == ANONYMOUS
    assert "sessionid" not in visitor.cookies


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="reads /proc")
def test_secret_key_is_no_argument_and_no_others_business(demo: Demo) -> None:
    kept = Path(demo.database).with_name("secret-key")
    assert kept.stat().st_mode & 0o777 == 0o600
    key = kept.read_bytes()
    children = Path(f"/proc/{demo.pid}/task/{demo.pid}/children").read_text().split()
    assert len(children) == 2
    for process in (demo.pid, *children):
        assert key not in Path(f"/proc/{process}/cmdline").read_bytes()
    assert key.decode() not in Path(demo.database).with_name("session-settings.json").read_text()


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    command = [sys.executable, str(RUN), f"--dir={tmp_path}"]
    environment = os.environ | {"PATH": ""}
    done = subprocess.run(
        command, check=False, env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "error: cargo is not on the PATH: install Rust first."
