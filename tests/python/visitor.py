"""A visitor of the demo without a browser: cookies, forms, and what the pages say."""

from __future__ import annotations

import contextlib
import http.client
import re
from dataclasses import dataclass, field
from http.cookies import SimpleCookie
from urllib.parse import urlencode, urlsplit

TIMEOUT = 20


@dataclass
class Answer:
    status: int
    headers: http.client.HTTPMessage
    text: str

    @property
    def who(self) -> str:
        """Whom the page shows as logged in."""
        return re.findall(r'id="who">([^<]+)<', self.text)[0]

    @property
    def cart(self) -> dict[str, int]:
        lines = re.findall(r'data-sku="(\w+)" data-quantity="(\d+)"', self.text)
        return {sku: int(quantity) for sku, quantity in lines}


@dataclass
class Visitor:
    """Keeps cookies as a browser does: by host, whatever the port."""

    cookies: dict[str, str] = field(default_factory=dict)

    def get(self, server: str, path: str = "/", **headers: str) -> Answer:
        return self._request("GET", server, path, "", headers)

    def post(self, server: str, path: str, **form: str) -> Answer:
        """Posts a form of the server's own page; an answer other than a redirect is an error."""
        answer = self.post_from(origin(server), server, path, **form)
        assert answer.status in {302, 303}, (answer.status, answer.text)
        return answer

    def post_from(self, sender: str | None, server: str, path: str, **form: str) -> Answer:
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        if sender:
            headers["Origin"] = sender
        form = {"csrfmiddlewaretoken": self.cookies.get("csrftoken", "")} | form
        return self._request("POST", server, path, urlencode(form), headers)

    def log_in(self, django: str, username: str, password: str) -> None:
        self.get(django, "/login")
        self.post(django, "/login", username=username, password=password)

    def _request(
        self, method: str, server: str, path: str, body: str, headers: dict[str, str]
    ) -> Answer:
        connection = http.client.HTTPConnection(urlsplit(server).netloc, timeout=TIMEOUT)
        with contextlib.closing(connection):
            cookie = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
            headers = {"Cookie": cookie, **headers}
            connection.request(method, path, body or None, headers)
            response = connection.getresponse()
            answer = Answer(response.status, response.headers, response.read().decode())
        for line in response.headers.get_all("Set-Cookie", []):
            for name, morsel in SimpleCookie(line).items():
                if morsel["max-age"] == "0":
                    self.cookies.pop(name, None)
                else:
                    self.cookies[name] = morsel.value
        return answer


def origin(server: str) -> str:
    parts = urlsplit(server)
    return f"{parts.scheme}://{parts.netloc}"
