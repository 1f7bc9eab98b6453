"""Redis watched over by Sentinels."""

from __future__ import annotations

from servers.redis import Redis
from servers.server import HOST, Group

SERVICE_NAME = "sessions"
SENTINELS = 3
QUORUM = 2
#: Milliseconds without an answer until a Sentinel thinks of a server as down.
DOWN_AFTER = 1000
FAILOVER_TIMEOUT = 5000


class RedisReplica(Redis):
    """A replica of another server."""

    def __init__(self, master: Redis) -> None:
        super().__init__()
        self._master = master

    def settings(self) -> list[str]:
        return [*super().settings(), f"replicaof {HOST} {self._master.port}"]


class Sentinel(Redis):
    """One Sentinel. It finds the others, and the replica, by way of the master.

    Sentinels ask their own clients for no login.
    """

    def __init__(self, master: Redis) -> None:
        super().__init__()
        self._master = master

    def settings(self) -> list[str]:
        return [
            f"bind {HOST}",
            f"sentinel monitor {SERVICE_NAME} {HOST} {self._master.port} {QUORUM}",
            f"sentinel auth-user {SERVICE_NAME} {self.user}",
            f"sentinel auth-pass {SERVICE_NAME} {self.password}",
            f"sentinel down-after-milliseconds {SERVICE_NAME} {DOWN_AFTER}",
            f"sentinel failover-timeout {SERVICE_NAME} {FAILOVER_TIMEOUT}",
        ]

    def listen(self) -> list[str]:
        return [*super().listen(), "--sentinel"]

    def cli(self, *words: str) -> list[str]:
        return [self.program("redis-cli"), "-h", HOST, "-p", str(self.port), *words]

    def sees_all(self) -> bool:
        """Tell whether the other Sentinels and a replica to promote are known."""
        _, quorum = self.ask(self.cli("SENTINEL", "CKQUORUM", SERVICE_NAME))
        _, output = self.ask(self.cli("SENTINEL", "REPLICAS", SERVICE_NAME))
        # The answer is of names and values in turn, each on a line.
        words = output.splitlines()
        replica = dict(zip(words[::2], words[1::2], strict=False))
        return (
            quorum.startswith(f"OK {SENTINELS} ")
            and replica.get("flags") == "slave"
            and replica.get("master-link-status") == "ok"
        )


class RedisSentinel(Group):
    """A master, a replica, and Sentinels that make the replica the master when that one is lost.

    The address names the Sentinels; user and password are those of the servers.
    """

    name = "redis-sentinel"
    variable = "TEST_REDIS_SENTINEL_URL"
    packages = Redis.packages
    programs = Redis.programs

    def build(self) -> None:
        master = Redis()
        self.add(master)
        replica = RedisReplica(master)
        self.add(replica)
        # Sentinels ask the master for its replicas at once, and then only every ten seconds.
        self.wait(replica.follows, "the replica to have its copy")
        sentinels = [Sentinel(master) for _ in range(SENTINELS)]
        for sentinel in sentinels:
            self.add(sentinel)
        for sentinel in sentinels:
            self.wait(sentinel.sees_all, "the Sentinels to know each other")

    def url(self) -> str:
        places = ",".join(f"{HOST}:{server.port}" for server in self.servers[-SENTINELS:])
        return f"redis+sentinel://{self.user}:{self.password}@{places}/{SERVICE_NAME}/0"
