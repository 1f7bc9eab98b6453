#!/usr/bin/env python3
"""Run Django's own tests on this package's engines and middleware.

    python tests/django_suite.py [--django 4.2,5.2,6.1] [--every-engine]
                                 [--wheel PATH | --package-dir PATH]

For each Django version the tests come from its source distribution, which is fetched into
``.cache/`` and never becomes part of this repository. They run twice: as they are, and with
every mention of Django's engines replaced by ``django_session_rs.backends``, and of its session
and authentication middleware by ours (in a copy of the tests; Django itself stays untouched). A
test that passes with Django's engine has to pass with ours, and a test that used Django's engine
has to have used ours.

``sessions_tests`` runs on every database, with all engines replaced. The tests of what stands on
sessions (``auth_tests`` and others) run with ``SESSION_ENGINE`` ours: for each version on SQLite
with the ``db`` engine, for one version on every database, and on SQLite with each of the other
engines; ``--every-engine`` leaves none out.

SQLite is always tested, PostgreSQL and MySQL when ``TEST_POSTGRES_URL`` and ``TEST_MYSQL_URL``
are set (see ``tests/services.py``). Interpreters are the running one, those that ``PYTHONS``
names, ``python3.10`` … on PATH, and pyenv's.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / ".cache" / "django-suite"
WHEELS = ROOT / ".cache" / "wheels"
VENVS = ROOT / ".venvs"
PLUGIN = ROOT / "tests" / "django_suite_plugin"

#: Django version: the oldest and newest Python minor version it runs on.
VERSIONS = {"4.2": (10, 12), "5.2": (10, 14), "6.1": (12, 14)}
#: Without this one the suite proves nothing.
REQUIRED = "5.2"
LABEL = "sessions_tests"
#: Tests of what stands on sessions, whichever engine there is.
USERS = ("auth_tests", "messages_tests", "csrf_tests", "signed_cookies_tests", "test_client")
THEIRS = "django.contrib.sessions.backends"
OURS = "django_session_rs.backends"
#: What else is replaced, and by what.
MIDDLEWARE = {
    "django.contrib.sessions.middleware": "django_session_rs.middleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware": (
        "django_session_rs.auth.AuthenticationMiddleware"
    ),
}
#: Engines of Django's that are replaced by ours of the same name.
ENGINES = ("db", "cached_db", "cache", "file", "signed_cookies")
#: Test classes of which at least one test has to use ours, or the replacement does not work.
ON_OURS = (
    "DatabaseSessionTests",
    "DatabaseSessionWithTimeZoneTests",
    "CustomDatabaseSessionTests",
    "SessionMiddlewareTests",
    "CacheDBSessionTests",
    "CacheDBSessionWithTimeZoneTests",
    "CacheSessionTests",
    "FileSessionTests",
    "CookieSessionTests",
)
DATABASES = {"sqlite": None, "postgres": "TEST_POSTGRES_URL", "mysql": "TEST_MYSQL_URL"}
REPORTED_FAILURES = 10
TEST_SECONDS = 900


class SuiteError(Exception):
    """The comparison could not be made."""


Command = Sequence[str | Path]


def say(text: str) -> None:
    print(f"django-suite: {text}", flush=True)


def call(command: Command, what: str, **options: Any) -> str:
    """Run a program, return what it printed; show that only if it fails."""
    result = subprocess.run(
        [str(word) for word in command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
        **options,
    )
    if result.returncode != 0:
        tail = "\n".join(result.stdout.splitlines()[-60:])
        raise SuiteError(f"{what} failed (exit code {result.returncode}):\n{tail}")
    return str(result.stdout)


# Interpreters


def minor_version(interpreter: str) -> int | None:
    """Return the minor version of a CPython 3 that really runs and can make environments."""
    question = (
        "import ensurepip, sys, venv;"
        "print(sys.implementation.name, *sys.version_info[:2], sys.flags.debug)"
    )
    try:
        result = subprocess.run(
            [interpreter, "-c", question],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    match = re.fullmatch(r"cpython 3 (\d+) 0", result.stdout.strip())
    return int(match[1]) if result.returncode == 0 and match else None


def pyenv_interpreters() -> list[str]:
    """Return the interpreters that pyenv has installed, if there is a pyenv."""
    pyenv = shutil.which("pyenv")
    if pyenv is None:
        return []
    try:
        names = call([pyenv, "versions", "--bare", "--skip-aliases"], "pyenv").split()
        prefixes = [call([pyenv, "prefix", name], "pyenv").strip() for name in names]
    except SuiteError:
        return []
    return [str(Path(prefix) / "bin" / "python") for prefix in prefixes]


def interpreters() -> dict[int, str]:
    """Return one working interpreter for each minor version, the running one first."""
    candidates = [sys.executable, *os.environ.get("PYTHONS", "").replace(os.pathsep, " ").split()]
    for minor in range(10, 15):
        candidates += filter(None, [shutil.which(f"python3.{minor}")])
    found: dict[int, str] = {}
    for candidate in (*candidates, *pyenv_interpreters()):
        minor_found = minor_version(candidate)
        if minor_found is not None:
            found.setdefault(minor_found, candidate)
    return found


def choose(version: str, available: dict[int, str]) -> int | None:
    """Pick the interpreter for a Django version: the running one, else the newest that fits."""
    oldest, newest = VERSIONS[version]
    fitting = [minor for minor in available if oldest <= minor <= newest]
    running = sys.version_info[1]
    if running in fitting:
        return running
    return max(fitting, default=None)


# Environments


@dataclass
class Package:
    """Where our package comes from: a wheel, a folder to import from, or this repository."""

    wheel: Path | None = None
    folder: Path | None = None
    built: dict[int, Path] = field(default_factory=dict)

    def wheel_for(self, minor: int, interpreter: str) -> Path:
        """Return a wheel for an interpreter, built once per run."""
        if self.wheel is not None:
            return self.wheel
        if minor not in self.built:
            say(f"building the wheel for Python 3.{minor}")
            target = WHEELS / f"3.{minor}"
            shutil.rmtree(target, ignore_errors=True)
            build: Command = [
                sys.executable,
                "-m",
                "maturin",
                "build",
                "--release",
                "--out",
                target,
            ]
            call([*build, "--interpreter", interpreter], "maturin build", cwd=ROOT)
            (self.built[minor],) = target.glob("*.whl")
        return self.built[minor]


def environment(version: str, minor: int, interpreter: str, package: Package) -> Path:
    """Make the virtual environment for a Django version and return its interpreter."""
    folder = VENVS / f"django-{version}-py3.{minor}"
    python = folder / "bin" / "python"
    pip: Command = [python, "-m", "pip", "--quiet", "--disable-pip-version-check", "--no-input"]
    ready = folder / ".ready"
    if not ready.exists() or minor_version(str(python)) != minor:
        say(f"making {folder.relative_to(ROOT)}")
        call([interpreter, "-m", "venv", "--clear", folder], "venv")
        wanted = [f"Django=={version}.*", "psycopg[binary]>=3.2", "PyMySQL>=1.1.1", "tzdata"]
        call([*pip, "install", "--prefer-binary", *wanted], "pip install")
        ready.touch()
    if package.folder is None:
        wheel = package.wheel_for(minor, interpreter)
        call([*pip, "install", "--no-deps", "--force-reinstall", wheel], "pip install")
    else:
        call([*pip, "uninstall", "--yes", "django-session-rs"], "pip uninstall")
    return python


# Django's tests


def sources(python: Path) -> tuple[str, Path]:
    """Fetch the tests of the Django that `python` has; return its version and their folder."""
    version = call([python, "-c", "import django; print(django.get_version())"], "import").strip()
    folder = CACHE / version
    tests = folder / "theirs"
    if not tests.exists():
        say(f"fetching the tests of Django {version}")
        folder.mkdir(parents=True, exist_ok=True)
        pip: Command = [python, "-m", "pip", "--quiet", "--disable-pip-version-check"]
        download = ["download", "--no-deps", "--no-binary", "Django", "--dest", str(folder)]
        call([*pip, *download, f"Django=={version}"], "pip download")
        (archive,) = folder.glob("?jango-*.tar.gz")
        partial = folder / "partial"
        shutil.rmtree(partial, ignore_errors=True)
        unpack_tests(archive, partial)
        archive.unlink()
        partial.rename(tests)
    return version, tests


def unpack_tests(archive: Path, target: Path) -> None:
    """Unpack the folder ``tests`` of a source distribution."""
    with tarfile.open(archive) as file:
        members = []
        for member in file:
            _, _, inner = member.name.partition("/")
            if inner.startswith("tests/"):
                member.name = inner.removeprefix("tests/")
                members.append(member)
        if hasattr(tarfile, "data_filter"):
            file.extractall(target, members, filter="data")
        else:
            file.extractall(target, members)


def with_ours(tests: Path) -> Path:
    """Return a copy of the tests that names our engines and middleware in place of Django's."""
    copy = tests.parent / "ours"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(tests, copy)
    pattern = re.compile(rf"\b{re.escape(THEIRS)}\.({'|'.join(ENGINES)})\b")
    changed: dict[str, int] = {}
    files = [path for label in (LABEL, *USERS) for path in (copy / label).rglob("*.py")]
    for path in (copy / "runtests.py", *files):
        text, count = pattern.subn(rf"{OURS}.\1", path.read_text(encoding="utf-8"))
        for theirs, ours in MIDDLEWARE.items():
            # Messages that name Django's, between single quotes, are its own.
            text, more = re.subn(rf"(?<!')\b{re.escape(theirs)}\b", ours, text)
            count += more
        if count:
            path.write_text(text, encoding="utf-8")
            changed[str(path.relative_to(copy))] = count
    # The imports, the names of engines for the clearsessions command, the middleware of all tests.
    least = {f"{LABEL}/models.py": 1, f"{LABEL}/tests.py": 7, "runtests.py": 2}
    if any(changed.get(name, 0) < count for name, count in least.items()):
        raise SuiteError(f"Django's tests name their engines in another way: {changed}")
    return copy


Report = dict[str, Any]


def run_tests(
    python: Path,
    tests: Path,
    package: Package,
    *,
    labels: Sequence[str],
    engine: str,
    database: str,
    label: str,
) -> Report:
    """Run some of the tests and return what each of them did."""
    report = CACHE / f"report-{label}.json"
    report.unlink(missing_ok=True)
    variable = DATABASES[database]
    paths = [PLUGIN, *filter(None, [package.folder])]
    variables = {
        "PYTHONPATH": os.pathsep.join(str(path) for path in paths),
        "PYTHONDONTWRITEBYTECODE": "1",
        "SUITE_DATABASE_URL": os.environ[variable] if variable else "",
        "SUITE_ENGINE": engine,
        "SUITE_REPORT": str(report),
    }
    command: Command = [python, "runtests.py", *labels, "--settings=suite_settings"]
    result = subprocess.run(
        [*command, "--parallel=1", "--noinput", "--verbosity=1"],
        cwd=tests,
        env=os.environ | variables,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
        timeout=TEST_SECONDS,
    )
    if not report.exists():
        tail = "\n".join(result.stdout.splitlines()[-60:])
        raise SuiteError(f"runtests.py did not get to the tests ({label}):\n{tail}")
    content: Report = json.loads(report.read_text())
    return content


# Comparison


def engine_of(classes: str) -> str:
    """Return the engine a session class comes from: the first engine among its classes."""
    for name in classes.split():
        module, _, kind = name.rpartition(".")
        if kind == "SessionStore" and module.startswith((THEIRS + ".", OURS + ".")):
            return module
    return ""


def engines_used(test: dict[str, Any]) -> set[str]:
    return {engine_of(classes) for classes in test.get("stores", ())} - {""}


@dataclass
class Comparison:
    """What the two runs of one Django version on one database say together."""

    version: str
    python: str
    engine: str
    database: str
    tests: int
    on_ours: int
    failed_with_theirs: list[str]
    problems: list[str]


def compare(
    database: str,
    theirs: Report,
    ours: Report,
    *,
    engine: str,
    on_ours_wanted: Sequence[str],
    need_native: bool,
) -> Comparison:
    """Hold the run with our engines against the run with Django's."""
    problems = []
    on_ours = 0
    swap = {f"{THEIRS}.{name}": f"{OURS}.{name}" for name in ENGINES}
    classes_on_ours = set()
    for name, before in theirs["tests"].items():
        after = ours["tests"].get(name)
        if after is None:
            problems.append(f"{name}: not run with our engine")
            continue
        acceptable = {
            "passed": {"passed"},
            "skipped": {"passed", "skipped"},
            "failed as expected": {"passed", "failed as expected"},
        }.get(before["outcome"])
        if acceptable and after["outcome"] not in acceptable:
            detail = "\n".join(after["detail"].splitlines()[-25:])
            problems.append(f"{name}: {before['outcome']} → {after['outcome']}\n{detail}")
        expected = {swap.get(engine, engine) for engine in engines_used(before)}
        if after["outcome"] == "passed" and expected != engines_used(after):
            used = sorted(engines_used(after))
            problems.append(f"{name}: should have used {sorted(expected)}, but used {used}")
        if engines_used(after) & set(swap.values()):
            on_ours += 1
            classes_on_ours.add(name.split(".")[-2])
    problems += [
        f"{wanted}: no test used our engine"
        for wanted in on_ours_wanted
        if wanted not in classes_on_ours
    ]
    if on_ours == 0:
        problems.append("no test used our engine")
    if need_native and not ours["native"]:
        problems.append("django_session_rs._native was not loaded")
    return Comparison(
        version=ours["django"],
        python=ours["python"],
        engine=engine,
        database=database,
        tests=len(ours["tests"]),
        on_ours=on_ours,
        failed_with_theirs=[
            name for name, test in theirs["tests"].items() if test["outcome"] == "failed"
        ],
        problems=problems,
    )


def table(rows: Sequence[Comparison]) -> str:
    """Return the result for people: one line per Django version and database."""
    heading = ("Django", "Python", "tests of", "database", "tests", "on ours", "worse", "")
    lines: list[tuple[str, ...]] = [heading]
    for row in rows:
        failed = len(row.failed_with_theirs)
        note = f"{failed} fail with Django's engine" if failed else ""
        place = (row.version, row.python, row.engine, row.database)
        counts = (row.tests, row.on_ours, len(row.problems))
        lines.append((*place, *map(str, counts), note))
    widths = [max(len(line[column]) for line in lines) for column in range(len(heading))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


@dataclass
class Run:
    """What is run twice: some labels, with an engine where the tests ask for none."""

    labels: Sequence[str]
    engine: str
    database: str

    @property
    def name(self) -> str:
        """What the table calls it."""
        return "sessions" if self.labels == (LABEL,) else f"users of {self.engine}"


def runs(version: str, databases: Sequence[str], *, every_engine: bool) -> list[Run]:
    """Return what is run for one Django version."""
    found = [Run((LABEL,), "db", database) for database in databases]
    for database in databases:
        if every_engine or (version == REQUIRED and database == "sqlite"):
            found += [Run(USERS, engine, database) for engine in ENGINES]
        elif version == REQUIRED or database == "sqlite":
            found.append(Run(USERS, "db", database))
    return found


def check_version(
    version: str,
    minor: int,
    interpreter: str,
    package: Package,
    databases: Sequence[str],
    *,
    every_engine: bool,
) -> list[Comparison]:
    """Run one Django version on all databases."""
    python = environment(version, minor, interpreter, package)
    exact, tests = sources(python)
    rewritten = with_ours(tests)
    rows = []
    for run in runs(version, databases, every_engine=every_engine):
        label = f"{exact}-py3.{minor}-{run.name.replace(' ', '-')}-{run.database}"
        say(f"Django {exact}, Python 3.{minor}, {run.name}, {run.database}")
        theirs, ours = (
            run_tests(
                python,
                folder,
                package,
                labels=run.labels,
                engine=f"{engines}.{run.engine}",
                database=run.database,
                label=f"{label}-{side}",
            )
            for engines, folder, side in ((THEIRS, tests, "theirs"), (OURS, rewritten, "ours"))
        )
        row = compare(
            run.database,
            theirs,
            ours,
            engine=run.name,
            on_ours_wanted=ON_OURS if run.labels == (LABEL,) else (),
            need_native=package.folder is None,
        )
        for problem in row.problems[:REPORTED_FAILURES]:
            say(f"WORSE {problem}")
        rows.append(row)
    return rows


def main() -> int:
    """Parse the command line, run every version there is an interpreter for, print the table."""
    parser = argparse.ArgumentParser(description="Django's own tests on our engines.")
    parser.add_argument("--django", default=",".join(VERSIONS), metavar="X.Y[,X.Y]")
    parser.add_argument("--database", default=",".join(DATABASES), metavar="NAME[,NAME]")
    parser.add_argument("--every-engine", action="store_true", help="on every version and database")
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--wheel", type=Path, help="test this wheel instead of building one")
    source.add_argument("--package-dir", type=Path, help="import the package from this folder")
    options = parser.parse_args()
    wanted = options.django.split(",")
    databases = options.database.split(",")
    if not set(wanted) <= set(VERSIONS) or not set(databases) <= set(DATABASES):
        parser.error(f"choose from {', '.join(VERSIONS)} and {', '.join(DATABASES)}")
    package = Package(
        wheel=options.wheel and options.wheel.resolve(),
        folder=options.package_dir and options.package_dir.resolve(),
    )
    for name in list(databases):
        variable = DATABASES[name]
        if variable and not os.environ.get(variable):
            say(f"{name} is NOT TESTED: {variable} is not set")
            databases.remove(name)
    available = interpreters()
    rows: list[Comparison] = []
    broken = False
    for version in wanted:
        minor = choose(version, available)
        if minor is None:
            oldest, newest = VERSIONS[version]
            say(f"Django {version} is NOT TESTED: no Python 3.{oldest} to 3.{newest} here")
            broken = broken or version == REQUIRED
            continue
        try:
            rows += check_version(
                version,
                minor,
                available[minor],
                package,
                databases,
                every_engine=options.every_engine,
            )
        except (SuiteError, subprocess.TimeoutExpired) as error:
            say(f"Django {version}: {error}")
            broken = True
    print()
    print(table(rows))
    print()
    worse = sum(len(row.problems) for row in rows)
    if broken or worse or not rows:
        say(f"FAILED: {worse} worse than with Django's engine" if worse else "FAILED")
        return 1
    say("every test that passes with Django's engine passes with ours")
    return 0


if __name__ == "__main__":
    sys.exit(main())
