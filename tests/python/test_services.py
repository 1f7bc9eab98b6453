"""The program that starts the servers: what it passes on, and what it leaves behind."""

import contextlib
import os
import re
import shlex
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest
import redis
from redis.cluster import ClusterNode, RedisCluster
from redis.sentinel import Sentinel

ROOT = Path(__file__).resolve().parent.parent.parent
SERVICES = ROOT / "tests" / "services.py"
LOGIN = r"tester:[0-9a-f]{24}@"
PLACE = r"127\.0\.0\.1:[0-9]+"
ADDRESSES = {
    "mariadb": rf"mysql://{LOGIN}{PLACE}/django_session",
    "mariadb-primary": rf"mysql://{LOGIN}{PLACE}/django_session",
    "mariadb-replica": rf"mysql://{LOGIN}{PLACE}/django_session",
    "memcached": rf"memcached://{PLACE}",
    "pgbouncer": rf"postgres://{LOGIN}{PLACE}/django_session",
    "postgres": rf"postgres://{LOGIN}{PLACE}/django_session",
    "postgres-replica": rf"postgres://{LOGIN}{PLACE}/django_session",
    "redis": rf"redis://{LOGIN}{PLACE}/0",
    "redis-cluster": rf"redis\+cluster://{LOGIN}{PLACE},{PLACE},{PLACE}",
    "redis-sentinel": rf"redis\+sentinel://{LOGIN}{PLACE},{PLACE},{PLACE}/sessions/0",
    "redis-tls": rf"rediss://{LOGIN}{PLACE}/0",
}

sys.path.insert(0, str(SERVICES.parent))
import services  # noqa: E402
from servers.memcached import Memcached  # noqa: E402
from servers.server import Server  # noqa: E402


def start(*words, temporary, **variables):
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("TEST_")
    }
    environment.update(TMPDIR=str(temporary), **variables)
    return subprocess.Popen(
        [sys.executable, SERVICES, *words],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def eventually(condition):
    """Ask until the answer is yes; pytest's timeout ends what never becomes true."""
    while not condition():
        time.sleep(0.05)


def lacking(name):
    return [
        program
        for needed in services.with_needs([name])
        for program in services.SERVICES[needed]().missing()
    ]


def installed(name):
    if programs := lacking(name):
        pytest.skip(f"{name}: no {', '.join(programs)}")
    return name


@contextlib.contextmanager
def temporary_directory():
    # The servers may run as another user, who cannot enter pytest's private directories.
    folder = Path(tempfile.mkdtemp(prefix="services-test-"))
    folder.chmod(0o755)
    yield folder
    left = list(folder.iterdir())
    shutil.rmtree(folder)
    assert not left


@pytest.fixture
def temporary():
    with temporary_directory() as folder:
        yield folder


@pytest.fixture(scope="module")
def everything():
    """Whatever can run here, started once; the variables that say where it is."""
    names = [name for name in services.SERVICES if not lacking(name)]
    if not names:
        pytest.skip("no server is installed")
    with temporary_directory() as folder:
        process = start("serve", "--only", ",".join(names), temporary=folder)
        with process:
            # This is said last, so the variables are there to be read.
            assert any("press Ctrl-C" in line for line in process.stderr)
            lines = os.read(process.stdout.fileno(), 1 << 16).decode().splitlines()
            yield dict(shlex.split(line)[1].split("=", 1) for line in lines)
            process.send_signal(signal.SIGINT)
            assert process.wait(60) == 0


def processes(variables, name):
    """Process ids and ports of a service, in the order of their start."""
    pairs = variables[services.SERVICES[name].variable.replace("_URL", "_PIDS")].split(",")
    return [tuple(int(number) for number in pair.split(":")) for pair in pairs]


@pytest.mark.parametrize("name", services.SERVICES)
def test_service_has_an_address_and_living_processes(everything, name):
    installed(name)
    assert re.fullmatch(ADDRESSES[name], everything[services.SERVICES[name].variable])
    for pid, port in processes(everything, name):
        os.kill(pid, 0)
        socket.create_connection(("127.0.0.1", port), timeout=5).close()


@pytest.mark.parametrize(("name", "number"), [("redis", 1), ("redis-cluster", 6)])
def test_redis_wants_a_login_and_evicts_nothing(everything, name, number):
    installed(name)
    login = urlsplit(everything[services.SERVICES[name].variable])
    places = processes(everything, name)
    assert len(places) == number
    for _, port in places:
        # The client would try a refused login again and again.
        options = {"port": port, "retry": None, "decode_responses": True}
        with redis.Redis(**options) as client, pytest.raises(redis.AuthenticationError):
            client.ping()
        account = {"username": login.username, "password": login.password}
        with redis.Redis(**options, **account) as client:
            expected = {"maxmemory-policy": "noeviction", "save": "", "appendonly": "no"}
            assert client.config_get(*expected) == expected


def test_certificate_of_redis_is_for_the_address_and_by_the_authority(everything):
    installed("redis-tls")
    url, authority = everything["TEST_REDIS_TLS_URL"], everything["TEST_REDIS_TLS_CA"]
    with redis.Redis.from_url(url, ssl_ca_certs=authority, ssl_check_hostname=True) as client:
        assert client.ping()
    with redis.Redis.from_url(url) as client, pytest.raises(redis.ConnectionError) as caught:
        client.ping()
    assert "CERTIFICATE_VERIFY_FAILED" in str(caught.value)
    context = ssl.create_default_context(cafile=authority)
    port = urlsplit(url).port
    with (
        socket.create_connection(("127.0.0.1", port), timeout=5) as connection,
        context.wrap_socket(connection, server_hostname="localhost") as secured,
    ):
        assert secured.version() == "TLSv1.3"


def test_replica_of_a_killed_cluster_master_takes_over(everything):
    installed("redis-cluster")
    login = urlsplit(everything["TEST_REDIS_CLUSTER_URL"])
    (killed, lost), *others = processes(everything, "redis-cluster")
    with contextlib.closing(
        RedisCluster(
            startup_nodes=[ClusterNode("127.0.0.1", port) for _, port in others],
            username=login.username,
            password=login.password,
        )
    ) as client:
        assert len(client.get_primaries()) == len(client.get_replicas()) == 3
        # A key of the slots of the first master.
        key = next(
            f"key {number}"
            for number in range(1000)
            if client.get_node_from_key(f"key {number}").port == lost
        )
        client.set(key, "before")
        client.wait(1, 5000, target_nodes=client.get_node_from_key(key))
        os.kill(killed, signal.SIGKILL)

        def answers():
            with contextlib.suppress(redis.RedisError):
                return client.get(key) == b"before"

        eventually(answers)
        assert client.get_node_from_key(key).port in [port for _, port in others]


def test_replica_of_a_killed_master_is_promoted_by_the_sentinels(everything):
    installed("redis-sentinel")
    login = urlsplit(everything["TEST_REDIS_SENTINEL_URL"])
    (killed, lost), (_, replica), *sentinels = processes(everything, "redis-sentinel")
    watch = Sentinel(
        [("127.0.0.1", port) for _, port in sentinels],
        username=login.username,
        password=login.password,
    )
    name = login.path.split("/")[1]
    assert watch.discover_master(name) == ("127.0.0.1", lost)
    assert watch.discover_slaves(name) == [("127.0.0.1", replica)]
    os.kill(killed, signal.SIGKILL)

    def promoted():
        with contextlib.suppress(redis.RedisError):
            return watch.master_for(name).set("key", "after")

    eventually(promoted)
    assert watch.discover_master(name) == ("127.0.0.1", replica)


def test_memcached_answers(everything):
    installed("memcached")
    address = urlsplit(everything["TEST_MEMCACHED_URL"])
    with socket.create_connection((address.hostname, address.port), timeout=5) as connection:
        connection.sendall(b"version\r\n")
        assert connection.recv(100).startswith(b"VERSION 1.")


def test_replica_follows_the_primary_unless_it_is_paused(everything):
    installed("postgres-replica")
    with (
        psycopg.connect(everything["TEST_POSTGRES_URL"], autocommit=True) as primary,
        psycopg.connect(everything["TEST_POSTGRES_REPLICA_URL"], autocommit=True) as replica,
    ):

        def has(table):
            (found,) = replica.execute("SELECT to_regclass(%s) IS NOT NULL", [table]).fetchone()
            return found

        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            replica.execute("CREATE TABLE nowhere ()")
        primary.execute("CREATE TABLE early ()")
        eventually(lambda: has("early"))
        replica.execute("SELECT pg_wal_replay_pause()")
        state = "SELECT pg_get_wal_replay_pause_state()"
        eventually(lambda: replica.execute(state).fetchone() == ("paused",))
        primary.execute("CREATE TABLE late ()")
        (end,) = primary.execute("SELECT pg_current_wal_lsn()::text").fetchone()
        received = "SELECT pg_last_wal_receive_lsn() >= %s::pg_lsn"
        eventually(lambda: replica.execute(received, [end]).fetchone() == (True,))
        assert not has("late")
        replica.execute("SELECT pg_wal_replay_resume()")
        eventually(lambda: has("late"))


def test_pgbouncer_lends_a_connection_for_one_transaction(everything):
    installed("pgbouncer")
    url = everything["TEST_PGBOUNCER_URL"]
    with (
        psycopg.connect(url, prepare_threshold=None) as one,
        psycopg.connect(url, prepare_threshold=None) as other,
    ):
        backend = "SELECT pg_backend_pid()"
        first = one.execute(backend).fetchone()
        assert other.execute(backend).fetchone() != first
        other.rollback()
        one.rollback()
        # The last one given back is the first one lent.
        assert other.execute(backend).fetchone() == first


def test_pgbouncer_knows_no_prepared_statements(everything):
    installed("pgbouncer")
    url = everything["TEST_PGBOUNCER_URL"]
    with (
        psycopg.connect(url, prepare_threshold=0, autocommit=True) as one,
        psycopg.connect(url, prepare_threshold=0, autocommit=True) as other,
    ):
        one.execute("SELECT 1")
        with pytest.raises(psycopg.errors.DuplicatePreparedStatement):
            other.execute("SELECT 2")


def test_command_gives_its_exit_code(temporary):
    installed("memcached")
    command = [sys.executable, "-c", "import os, sys; sys.exit(7)"]
    process = start("run", "--only", "memcached", "--", *command, temporary=temporary)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 7, errors


@pytest.mark.parametrize(
    ("name", "number", "code"),
    [
        ("mariadb", signal.SIGTERM, 143),
        ("postgres", signal.SIGHUP, 129),
        ("redis-sentinel", signal.SIGTERM, 143),
    ],
)
def test_signal_stops_command_and_servers(temporary, name, number, code):
    script = "import time; print('up', flush=True); time.sleep(100)"
    command = [sys.executable, "-c", script]
    process = start("run", "--only", installed(name), "--", *command, temporary=temporary)
    with process:
        assert process.stdout.readline() == "up\n"
        process.send_signal(number)
        assert process.wait(60) == code


def test_servers_that_a_test_killed_or_stopped_do_not_spoil_the_end(temporary):
    script = """if True:
        import os, signal
        for number, pids in enumerate(sorted(os.environ)):
            if pids.startswith("TEST_") and pids.endswith("_PIDS"):
                for pair in os.environ[pids].split(","):
                    print(pid := int(pair.split(":")[0]))
                    os.kill(pid, [signal.SIGKILL, signal.SIGSTOP][number % 2])
    """
    names = ["redis-sentinel", "redis", "memcached", "postgres", "pgbouncer"]
    only = ",".join(installed(name) for name in names)
    command = [sys.executable, "-c", script]
    process = start("run", "--only", only, "--", *command, temporary=temporary)
    output, errors = process.communicate(timeout=100)
    assert process.returncode == 0, errors
    assert len(output.split()) == 9
    for pid in output.split():
        with pytest.raises(ProcessLookupError):
            os.kill(int(pid), 0)


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


def test_service_comes_with_those_it_needs():
    assert services.with_needs(["redis", "pgbouncer"]) == ["postgres", "pgbouncer", "redis"]


def test_nothing_is_attached_to_a_server_of_yours(monkeypatch, capsys):
    installed("pgbouncer")
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setenv("TEST_POSTGRES_URL", "postgres://mine")
    monkeypatch.delenv("TEST_PGBOUNCER_URL", raising=False)
    assert services.run(["pgbouncer"], ["true"]) == 0
    assert "pgbouncer is NOT TESTED: TEST_POSTGRES_URL is set" in capsys.readouterr().err


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


def test_server_that_ends_at_once_shows_its_log():
    service = Broken()
    with pytest.raises(services.ServiceError, match="it burns"):
        service.start()
    assert service.directory is None


def test_server_that_does_not_start_stops_the_others(monkeypatch):
    installed("memcached")
    begun = []

    class Noted(Memcached):
        def finish(self):
            begun.append((self, self.directory, self._process))

    monkeypatch.setattr(services, "SERVICES", {"memcached": Noted, "broken": Broken})
    monkeypatch.delenv("TEST_MEMCACHED_URL", raising=False)
    with pytest.raises(services.ServiceError):
        services.run(["memcached", "broken"], ["true"])
    # Whether it was up before the other one failed is a matter of luck.
    for service, directory, process in begun:
        assert service.directory is None
        assert not directory.exists()
        assert process.poll() is not None
