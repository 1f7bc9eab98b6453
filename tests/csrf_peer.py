"""The other side of the Rust test of CSRF protection: an installed Django with its middleware.

    csrf_peer.py ask COUNT SEED   makes up requests, and says what Django answers
    csrf_peer.py tokens           reads lines of {"secret": …, "token": …}, and counts the matches

``ask`` writes a line {"settings": …, "server": …} and then, for each of some requests under these
settings, a line {"request": …, "answer": …}. Headers are text of Latin-1, bodies are base64. Random
values in answers stand as ``(new)``, what the request brought as ``(same)``.
"""

from __future__ import annotations

import base64
import json
import logging
import random
import re
import string
import sys
import time
from io import BytesIO
from typing import Any
from urllib.parse import quote, quote_plus, urlsplit

NOW = 1_700_000_000
# Cookies expire by this clock.
time.time = lambda: float(NOW)

import django  # noqa: E402
from django.conf import settings  # noqa: E402

settings.configure(
    CACHES={"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}},
    CSRF_FAILURE_VIEW="__main__.failure",
    LOGGING_CONFIG=None,
    MIDDLEWARE=[
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.middleware.csrf.CsrfViewMiddleware",
    ],
    ROOT_URLCONF=__name__,
    SECRET_KEY="the secret of the CSRF test",
    SESSION_ENGINE="django.contrib.sessions.backends.cache",
)
django.setup()

from django.contrib.sessions.backends.cache import SessionStore  # noqa: E402
from django.core.handlers.wsgi import WSGIHandler  # noqa: E402
from django.http import HttpResponse  # noqa: E402
from django.middleware import csrf  # noqa: E402
from django.test import override_settings  # noqa: E402
from django.urls import path  # noqa: E402
from django.views import debug  # noqa: E402
from django.views.decorators.csrf import csrf_exempt  # noqa: E402

# What only some versions read as the Rust side does, which follows 5.2.
IS_OLD = django.VERSION < (5, 2)
IS_NEW = django.VERSION >= (6, 0)
LETTERS = string.ascii_letters + string.digits
REQUESTS_PER_SETTINGS = 40
FIELD = "csrfmiddlewaretoken"


def failure(request, reason=""):
    request.META["reason"] = reason
    return HttpResponse(status=403)


def act(request):
    for step in request.META["steps"]:
        {"rotate": csrf.rotate_token, "token": csrf.get_token}[step](request)
    return HttpResponse("done")


def failed(request, exception=None):
    return HttpResponse(status=400 if exception else 500)


# Django's own look into the form too, and fail on it once more.
handler400 = handler500 = failed
debug.technical_500_response = lambda *_, status_code=500: HttpResponse(status=status_code)
urlpatterns = [path("exempt", csrf_exempt(act)), path("", act)]


class Records(logging.Handler):
    """What was logged."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.names.append(record.name)


RECORDS = Records()
logging.getLogger("django").addHandler(RECORDS)
logging.getLogger("django").propagate = False


def one_of(rng: random.Random, usual: Any, *others: Any, odds: float = 0.25) -> Any:
    """Return what is usual, or at these odds something else."""
    return rng.choice(others) if rng.random() < odds else usual


def make_settings(rng: random.Random) -> dict[str, Any]:
    origins = [
        "https://trusted.com",
        "http://trusted.com:8080",
        "https://*.trusted.org",
        "http://*.plain.trusted.org",
        "https://*trusted.net",
        "https://foo.*.trusted.com",
        "HTTPS://*.Upper.com",
        "https://exact.com/",
        "https://[::1]:8000",
        "x-app+1://*.app.org",
        "https://*.ports.org:8443",
        "https://",
        "https://*",
    ]
    return {
        "ALLOWED_HOSTS": one_of(
            rng,
            ["example.com", ".example.org", "[::1]"],
            [],
            ["*"],
            ["EXAMPLE.com", "127.0.0.1"],
        ),
        "CSRF_COOKIE_AGE": one_of(rng, 31449600, None, 0, 60),
        "CSRF_COOKIE_DOMAIN": one_of(rng, None, "example.com", ".example.com", "Example.com"),
        "CSRF_COOKIE_HTTPONLY": rng.random() < 0.2,
        "CSRF_COOKIE_NAME": one_of(rng, "csrftoken", "my-csrf", "__Host-csrf"),
        "CSRF_COOKIE_PATH": one_of(rng, "/", "/app", "/a b"),
        "CSRF_COOKIE_SAMESITE": one_of(rng, "Lax", "Strict", "None", None, False),
        "CSRF_COOKIE_SECURE": rng.random() < 0.2,
        "CSRF_HEADER_NAME": one_of(rng, "HTTP_X_CSRFTOKEN", "HTTP_X_2FA_XSRF"),
        "CSRF_TRUSTED_ORIGINS": rng.sample(origins, rng.choice((0, 1, 3, len(origins)))),
        "CSRF_USE_SESSIONS": rng.random() < 0.3,
        "DATA_UPLOAD_MAX_MEMORY_SIZE": one_of(rng, 2621440, 53, 85, 86, 150, 1500, odds=0.4),
        "DATA_UPLOAD_MAX_NUMBER_FIELDS": one_of(rng, 1000, 2, None),
        "DATA_UPLOAD_MAX_NUMBER_FILES": one_of(rng, 100, 1, 0, None),
        "DEBUG": rng.random() < 0.15,
        "SECURE_PROXY_SSL_HEADER": one_of(
            rng, None, ["HTTP_X_FORWARDED_PROTO", "https"], ["HTTP_X_SSL", "on"], odds=0.4
        ),
        "SESSION_COOKIE_DOMAIN": one_of(rng, None, ".example.com", "example.org"),
        "USE_X_FORWARDED_HOST": rng.random() < 0.25,
        "USE_X_FORWARDED_PORT": rng.random() < 0.25,
    }


def make_server(rng: random.Random) -> dict[str, Any]:
    secure = rng.random() < 0.5
    usual = 443 if secure else 80
    return {
        "name": one_of(rng, "example.com", "localhost", "unknown"),
        "port": one_of(rng, usual, 8000, 443, 80, odds=0.4),
        "secure": secure,
    }


def text_of(rng: random.Random, length: int, letters: str = LETTERS) -> str:
    return "".join(rng.choice(letters) for _ in range(length))


def masked(rng: random.Random, secret: str) -> str:
    mask = text_of(rng, 32)
    pairs = zip((LETTERS.index(x) for x in secret), (LETTERS.index(x) for x in mask), strict=True)
    return mask + "".join(LETTERS[(x + y) % 62] for x, y in pairs)


def malformed(rng: random.Random) -> str:
    return rng.choice(
        (
            text_of(rng, 31),
            text_of(rng, 33),
            text_of(rng, 63),
            text_of(rng, 65),
            text_of(rng, 128),
            text_of(rng, 31) + "-",
            "*" + text_of(rng, 63),
            text_of(rng, 30) + "\u00e9",
            text_of(rng, 31) + "\u00e9",
            " " * 32,
            text_of(rng, 16) + " " + text_of(rng, 15),
            "x",
        )
    )


def make_token(rng: random.Random, secret: str) -> str:
    kind = rng.random()
    if kind < 0.5:
        return masked(rng, secret)
    if kind < 0.75:
        return secret
    if kind < 0.8:
        return ""
    if kind < 0.87:
        return malformed(rng)
    if kind < 0.92:
        return secret.swapcase()
    return text_of(rng, rng.choice((32, 64)))


HOSTS = (
    "example.com",
    "example.com:8000",
    "EXAMPLE.com",
    "example.com.",
    "sub.example.org",
    "sub.example.com",
    "localhost:8000",
    "a.localhost",
    "127.0.0.1",
    "[::1]",
    "[::1]:8000",
    "[::1",
    "evil.com",
    "example.com:port",
    "exa mple.com",
    "example.com, evil.com",
    "",
    ".",
    "ex\u00e4mple.com",
)
ORIGINS = (
    "null",
    "",
    "https://evil.com",
    "https://example.com.evil.com",
    "https://trusted.com",
    "http://trusted.com",
    "http://trusted.com:8080",
    "https://trusted.com/",
    "HTTPS://trusted.com",
    "https://sub.trusted.org",
    "https://trusted.org",
    "https://a.b.trusted.org",
    "https://SUB.trusted.org",
    "https://SUB.TRUSTED.ORG",
    "HTTPS://sub.trusted.org",
    "http://sub.trusted.org",
    "https://eviltrusted.org",
    "https://sub.trusted.org:8443",
    "https://user@sub.trusted.org/path?a#b",
    "https://evil.com/.trusted.org",
    "https://evil.com?.trusted.org",
    "https://evil.com#.trusted.org",
    "https://evil.com\\.trusted.org",
    "\thttps://sub.trusted.org",
    " https://sub.trusted.org",
    "ht\ttps://sub.trusted.org",
    "https:sub.trusted.org",
    "//sub.trusted.org",
    "https://trusted.net",
    "https://sub.trusted.net",
    "http://x.plain.trusted.org",
    "https://foo.bar.trusted.com",
    "https://foo.*.trusted.com",
    "https://a.upper.com",
    "https://a.Upper.com",
    "https://upper.com",
    "https://exact.com",
    "https://exact.com/",
    "https://[::1]:8000",
    "https://[::1",
    "https://::1].trusted.org",
    "https://[1.2.3.4]",
    "https://[v1.a]",
    "https://[nonsense]",
    "x-app+1://a.app.org",
    "https://a.ports.org:8443",
    "https://a.ports.org",
    "https://\u00e9.trusted.org",
    "https://",
    "https://" + "a" * 300,
    "1https://sub.trusted.org",
    "https\u00e9://sub.trusted.org",
)


def make_headers(
    rng: random.Random, options: dict[str, Any], server: dict[str, Any]
) -> list[list[str]]:
    headers = []
    host = one_of(rng, "example.com", *HOSTS, odds=0.15)
    if rng.random() < 0.95:
        headers.append(["host", host])
    if rng.random() < 0.1:
        headers.append(["x-forwarded-host", one_of(rng, "example.com", *HOSTS, odds=0.5)])
    if rng.random() < 0.1:
        headers.append(["x-forwarded-port", rng.choice(("443", "80", "8000", "", "x"))])
    if rng.random() < 0.2:
        proto = rng.choice(("https", "http", "HTTPS", " https ,http", "http,https", "on", ""))
        headers.append(["x-forwarded-proto", proto])
    if rng.random() < 0.1:
        headers.append(["x-ssl", rng.choice(("on", "off", "on,off", ""))])
    scheme = "https" if server["secure"] else "http"
    scheme = one_of(rng, scheme, "https", "http", "ftp", odds=0.15)
    if rng.random() < 0.6:
        headers.append(["origin", one_of(rng, f"{scheme}://{host}", *ORIGINS, odds=0.25)])
        if rng.random() < 0.03:
            headers.append(["origin", rng.choice(ORIGINS)])
    if rng.random() < 0.7:
        place = rng.choice(("", "/", "/a/b?c=d#e", "?a", ":8000/", ":443/"))
        others = [*ORIGINS, "https://.example.com/", "https://sub.example.com", "https://u:p@x.y/z"]
        usual = f"{scheme}://{host}{place}"
        headers.append(["referer", one_of(rng, usual, *others, odds=0.3)])
    return headers


def encoded(rng: random.Random, text: str) -> str:
    kind = rng.random()
    if kind < 0.6:
        return quote_plus(text)
    if kind < 0.8:
        return "".join(f"%{byte:02x}" for byte in text.encode())
    return quote(text, safe="-* ")


def urlencoded(rng: random.Random, tokens: list[str]) -> bytes:
    fields = [f"{one_of(rng, FIELD, FIELD.upper(), ' ' + FIELD)}={encoded(rng, t)}" for t in tokens]
    others = (
        "a=b",
        "",
        "&",
        "x",
        "=y",
        "a=%zz",
        f"{FIELD}2=x",
        f"a;{FIELD}=x",
        "u=%C3%A9",
        "b=c=d",
    )
    for _ in range(rng.choice((0, 1, 3))):
        fields.insert(rng.randrange(len(fields) + 1), rng.choice(others))
    if rng.random() < 0.05:
        fields.append(FIELD)
    if rng.random() < 0.1:
        fields.append("big=" + "x" * rng.choice((100, 1400, 1500)))
    if rng.random() < 0.05:
        fields.extend("f=1" for _ in range(rng.choice((996, 1000, 1005))))
    body = "&".join(fields).encode()
    if rng.random() < 0.05:
        body += b"&latin=\xe9"
    if rng.random() < 0.3:
        body = body.replace(FIELD.encode(), FIELD.replace("csrf", "%63srf").encode())
    return body


def multipart(rng: random.Random, tokens: list[str], boundary: str) -> bytes:
    parts = []
    for token in tokens:
        name = one_of(
            rng,
            f'"{FIELD}"',
            FIELD,
            f'" {FIELD} "',
            FIELD if IS_OLD else f"<{FIELD}>",
            f'"{FIELD}2"',
            odds=0.3,
        )
        disposition = one_of(
            rng,
            "Content-Disposition",
            "content-DISPOSITION",
            "Content-Disposition" if IS_NEW else " Content-Disposition",
        )
        header = f"{disposition}: form-data; name={name}"
        header += one_of(
            rng,
            "",
            '; filename=""',
            '; filename="a.txt"',
            "; filename*=utf-8''a.txt",
            "" if IS_OLD else "; filename*0=a",
            "; FileName=x",
            '; x="a;b"; y',
            '; x="a\\";name=other"',
            f"; name={FIELD}",
            '; name="other"',
            odds=0.25,
        )
        data = token.encode()
        if rng.random() < 0.1:
            header = "Content-Type: text/plain; charset=utf-8\r\n" + header
        if rng.random() < 0.05:
            header += "\r\nno header at all\r\nX-Bytes: \u00e9"
        if rng.random() < 0.05 and not IS_NEW:
            header += "\r\nContent-Transfer-Encoding: " + rng.choice(("base64", "8bit", " base64 "))
            data = base64.b64encode(data)
        if rng.random() < 0.02:
            header += "\r\nX-Long: " + "x" * (600 if IS_OLD else 1100)
        if rng.random() < 0.03:
            header = "X-None: a"
        if rng.random() < 0.03:
            header = ""
        parts.append(
            header.encode("latin-1" if rng.random() < 0.5 else "utf-8") + b"\r\n\r\n" + data
        )
    for _ in range(rng.choice((0, 0, 1, 2))):
        data = rng.choice((b"", b"data", b"\xff\x00\r\n\r\n", b"x" * 1300, b"\r\n--" + b"x"))
        header = rng.choice(
            (
                b'Content-Disposition: form-data; name="file"; filename="f.bin"',
                b'Content-Disposition: form-data; filename="f.bin"',
                b'Content-Disposition: form-data; name="other"',
                b'Content-Disposition: form-data; name=""',
                b"Content-Disposition: form-data",
            )
        )
        parts.insert(rng.randrange(len(parts) + 1), header + b"\r\n\r\n" + data)
    separator = b"--" + boundary.encode()
    newline = one_of(rng, b"\r\n", b"\n", b"", odds=0.05)
    body = one_of(rng, b"", b"preamble\r\n", b"\r\n", b"p" * (600 if IS_OLD else 1100), odds=0.06)
    for part in parts:
        body += separator + b"\r\n" + part + newline
    body += one_of(rng, separator + b"--\r\n", separator + b"--", separator, b"", odds=0.2)
    body += one_of(rng, b"", b"epilogue", b"e" * (600 if IS_OLD else 1100), odds=0.05)
    return body


def make_body(rng: random.Random, secret: str) -> tuple[str | None, bytes]:
    kind = rng.random()
    count = one_of(rng, 1, 0, 2, 3, odds=0.3)
    tokens = [make_token(rng, secret) for _ in range(count)]
    if kind < 0.2:
        return None, b""
    if kind < 0.6:
        content_type = one_of(
            rng,
            "application/x-www-form-urlencoded",
            "application/x-www-form-urlencoded; charset=UTF-8",
            'Application/X-WWW-form-urlencoded;charset="utf-8"',
            "text/plain" if IS_OLD else "application/x-www-form-urlencoded; charset=latin-1",
            "text/plain" if IS_OLD else "application/x-www-form-urlencoded; charset=utf8",
            "application/x-www-form-urlencoded; charset=",
            "text/plain" if IS_OLD else "application/x-www-form-urlencoded=a; b",
            "application/x-www-form-urlencoded ",
            "application/x-www-form-urlencoded, text/plain",
            "text/plain",
            "application/json",
            "",
        )
        return content_type, urlencoded(rng, tokens)
    boundary = rng.choice(("X", "----WebKitFormBoundaryabcdef", "a b'()+_,-./:=?", "x" * 201))
    quoted = f'"{boundary}"'
    content_type = "multipart/form-data; " + one_of(
        rng,
        f"boundary={quoted}",
        f"BOUNDARY={quoted}",
        f"charset=utf-8; boundary={quoted}",
        f"boundary=other; boundary={quoted}",
        "boundary=",
        "boundary=" + "x" * 202,
        'boundary="a "',
        'boundary="\u00e9"',
        "bound=x",
        "",
    )
    if rng.random() < 0.05 and not IS_OLD:
        content_type = rng.choice(
            (
                content_type.title(),
                content_type.replace("form-data", "mixed"),
                content_type.replace("form-data", "form-data=a"),
                " " + content_type,
            )
        )
    return content_type, multipart(rng, tokens, boundary)


def make_request(
    rng: random.Random, options: dict[str, Any], server: dict[str, Any]
) -> dict[str, Any]:
    secret = text_of(rng, 32)
    headers = make_headers(rng, options, server)
    steps = rng.choice(([], [], ["token"], ["rotate"], ["token", "rotate"], ["rotate", "token"]))
    stored: Any = one_of(rng, secret, masked(rng, secret), None, "malformed", odds=0.3)
    session: dict[str, Any] | None = None
    cookies = ["theme=dark", "novalue", "a=b=c"][: rng.randrange(4)]
    if options["CSRF_USE_SESSIONS"]:
        session = one_of(rng, {}, None, {"cart": 1})
        if stored == "malformed":
            # What Django does with it afterwards is its own affair.
            stored, steps = rng.choice(("", "abc", text_of(rng, 33))), []
        if session is not None and stored is not None:
            session["_csrftoken"] = stored
        cookies.append("sessionid=(key)")
    elif stored is not None:
        value = malformed(rng) if stored == "malformed" else stored
        value = one_of(rng, value, f'"{value}"', f" {value} ", odds=0.1)
        cookies.append(f"{options['CSRF_COOKIE_NAME']}={value}")
        if rng.random() < 0.05:
            cookies.append(
                f"{options['CSRF_COOKIE_NAME']}={rng.choice((secret, malformed(rng), ''))}"
            )
    elif rng.random() < 0.2:
        cookies.append(f"{options['CSRF_COOKIE_NAME']}=")
    if cookies:
        line = rng.choice(("; ", ";")).join(cookies).encode().decode("latin-1")
        headers.append(["cookie", line])
    method = one_of(rng, "POST", "GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE", "PROPFIND")
    content_type, body = make_body(rng, secret)
    if content_type is not None:
        headers.append(["content-type", content_type])
        headers.append(["content-length", str(len(body))])
    if rng.random() < 0.4:
        name = options["CSRF_HEADER_NAME"].removeprefix("HTTP_").replace("_", "-").lower()
        headers.append([name, make_token(rng, secret)])
        if rng.random() < 0.03:
            headers.append([name, make_token(rng, secret)])
    return {
        "body": base64.b64encode(body).decode(),
        "exempt": rng.random() < 0.05,
        "headers": headers,
        "method": method,
        "secret": secret,
        "session": session,
        "steps": steps,
    }


def environ_of(request: dict[str, Any], server: dict[str, Any]) -> dict[str, Any]:
    body = base64.b64decode(request["body"])
    environ: dict[str, Any] = {
        "PATH_INFO": "/exempt" if request["exempt"] else "/",
        "QUERY_STRING": "",
        "REQUEST_METHOD": request["method"],
        "SCRIPT_NAME": "",
        "SERVER_NAME": server["name"],
        "SERVER_PORT": str(server["port"]),
        "steps": request["steps"],
        "wsgi.input": BytesIO(body),
        "wsgi.url_scheme": "https" if server["secure"] else "http",
    }
    for name, value in request["headers"]:
        key = name.upper().replace("-", "_")
        if name not in ("content-type", "content-length"):
            key = "HTTP_" + key
        environ[key] = f"{environ[key]},{value}" if key in environ else value
    return environ


def shown_reason(reason: str) -> str:
    """Return a reason as the Rust side gives it: short, and of a referer the host alone."""
    rule = r"((?:Origin|Referer) checking failed - )(.*)( does not match any .*)"
    parts = re.fullmatch(rule, reason, re.DOTALL)
    if not parts:
        return reason
    before, value, after = parts.groups()
    if reason.startswith("Referer"):
        value = "https://" + urlsplit(value).netloc.rpartition("@")[2]
    cut = value[:200].encode("unicode_escape").decode() + ("..." if len(value) > 200 else "")
    return before + cut + after


def normal_cookie(line: str, request: dict[str, Any], session_key: str | None) -> str:
    pair, _, attributes = line.partition("; ")
    name, _, value = pair.partition("=")
    kept = (request["secret"], session_key)
    return f"{name}={'(same)' if value in kept else '(new)'}; {attributes}"


def ask(handler: WSGIHandler, request: dict[str, Any], server: dict[str, Any]) -> dict[str, Any]:
    RECORDS.names.clear()
    session_key = None
    if request["session"] is not None:
        store = SessionStore()
        store.update(request["session"])
        store.create()
        session_key = store.session_key
    asked = dict(request)
    if session_key:
        asked["headers"] = [[n, v.replace("(key)", session_key)] for n, v in request["headers"]]
    environ = environ_of(asked, server)
    answered: dict[str, Any] = {}

    def start_response(status: str, headers: list[tuple[str, str]]) -> None:
        answered["status"] = int(status.split(maxsplit=1)[0])
        answered["headers"] = headers

    response = handler(environ, start_response)
    response.close()
    lines = [v.strip() for n, v in answered["headers"] if n == "Set-Cookie"]
    vary = [v for n, v in answered["headers"] if n == "Vary"]
    keys = [line.partition("=")[2].partition(";")[0] for line in lines if "sessionid=" in line]
    entry = SessionStore((keys or [session_key])[0]).get("_csrftoken")
    if entry is not None and entry != (request["session"] or {}).get("_csrftoken"):
        entry = "(same)" if entry == request["secret"] else "(new)"
    reason = environ.get("reason")
    return {
        "logger": RECORDS.names[-1] if RECORDS.names else None,
        "reason": None if reason is None else shown_reason(reason),
        "session_entry": entry,
        "set_cookie": sorted(normal_cookie(line, request, session_key) for line in lines),
        "status": answered["status"],
        "vary": vary[0] if vary else None,
    }


def main() -> None:
    if sys.argv[1] == "tokens":
        count = matching = 0
        for line in sys.stdin:
            pair = json.loads(line)
            count += 1
            csrf._check_token_format(pair["token"])
            matching += csrf._does_token_match(pair["token"], pair["secret"])
        print(json.dumps({"count": count, "matching": matching}))
        return
    count, rng = int(sys.argv[2]), random.Random(int(sys.argv[3]))
    for number in range(count):
        if number % REQUESTS_PER_SETTINGS == 0:
            options, server = make_settings(rng), make_server(rng)
            print(json.dumps({"settings": options, "server": server}))
            override = override_settings(**options)
            override.enable()
            handler = WSGIHandler()
        request = make_request(rng, options, server)
        print(json.dumps({"request": request, "answer": ask(handler, request, server)}))
        if number % REQUESTS_PER_SETTINGS == REQUESTS_PER_SETTINGS - 1:
            override.disable()


if __name__ == "__main__":
    main()
