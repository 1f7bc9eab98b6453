"""The program that starts the databases: what it passes on, and what it leaves behind."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
SERVICES = ROOT / "tests" / "services.py"
NAMES = {"postgres": "TEST_POSTGRES_URL", "mariadb": "TEST_MYSQL_URL"}

sys.path.insert(0, str(SERVICES.parent))
import services  # noqa: E402
from servers.server import Server  # noqa: E402


def start(*words, temporary, **variables):
    environment = {name: value for name, value in os.environ.items() if name not in NAMES.values()}
    environment.update(TMPDIR=str(temporary), **variables)
    return subprocess.Popen(
        [sys.executable, SERVICES, *words],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def temporary():
    # The servers may run as another user, who cannot enter pytest's private directories.
    folder = Path(tempfile.mkdtemp(prefix="services-test-"))
    folder.chmod(0o755)
    yield folder
    left = list(folder.iterdir())
    shutil.rmtree(folder)
    assert not left


@pytest.fixture(params=NAMES)
def installed(request):
    missing = services.SERVICES[request.param]().missing()
    if missing:
        pytest.skip(f"{request.param}: no {', '.join(missing)}")
    return request.param


def test_command_gets_the_address_and_gives_its_exit_code(installed, temporary):
    script = "import os, sys; print(os.environ[sys.argv[1]]); sys.exit(7)"
    command = [sys.executable, "-c", script, NAMES[installed]]
    process = start("run", "--only", installed, "--", *command, temporary=temporary)
    output, errors = process.communicate(timeout=100)
    assert process.returncode == 7, errors
    scheme = {"postgres": "postgres", "mariadb": "mysql"}[installed]
    assert output.startswith(f"{scheme}://tester:")
    assert "@127.0.0.1:" in output


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_signal_stops_command_and_server(installed, temporary, number, code):
    script = "import time; print('up', flush=True); time.sleep(100)"
    command = [sys.executable, "-c", script]
    process = start("run", "--only", installed, "--", *command, temporary=temporary)
    with process:
        assert process.stdout.readline() == "up\n"
        process.send_signal(number)
        assert process.wait(60) == code


def test_address_of_a_running_server_is_passed_on(temporary):
    script = "import os; print(os.environ['TEST_POSTGRES_URL'])"
    process = start(
        *["run", "--only", "postgres", "--", sys.executable, "-c", script],
        temporary=temporary,
        TEST_POSTGRES_URL="postgres://mine",
    )
    output, _ = process.communicate(timeout=60)
    assert (process.returncode, output) == (0, "postgres://mine\n")


@pytest.fixture
def postgres_missing(monkeypatch):
    def refuse(packages):
        raise services.MissingError("not root")

    monkeypatch.setattr(services, "install", refuse)
    monkeypatch.setattr(services.Postgres, "programs", ("no-such-program",))
    monkeypatch.delenv("TEST_POSTGRES_URL", raising=False)


def test_missing_program_is_named_and_the_command_runs(postgres_missing, monkeypatch, capsys):
    monkeypatch.delenv("CI", raising=False)
    assert services.run(["postgres"], ["true"]) == 0
    assert "postgres is NOT TESTED: no no-such-program" in capsys.readouterr().err


def test_missing_program_is_an_error_in_ci(postgres_missing, monkeypatch):
    monkeypatch.setenv("CI", "true")
    with pytest.raises(services.ServiceError, match="missing: postgres"):
        services.run(["postgres"], ["true"])


def test_server_that_ends_at_once_shows_its_log(monkeypatch):
    class Broken(Server):
        name = "broken"
        variable = "TEST_BROKEN_URL"
        programs = ("sh",)

        def prepare(self, directory):
            pass

        def command(self, directory):
            return ["sh", "-c", "echo it burns; exit 1"]

        def ready(self):
            return False

    service = Broken()
    with pytest.raises(services.ServiceError, match="it burns"):
        service.start()
    assert service.directory is None
