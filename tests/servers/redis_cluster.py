"""Redis Cluster."""

from __future__ import annotations

from servers.redis import Redis
from servers.server import HOST, Group, free_port

MASTERS = 3
REPLICAS = 1
NODES = MASTERS * (1 + REPLICAS)
#: How long a node may be silent before the others think of it as lost, in milliseconds.
SILENCE = 1000


class ClusterNode(Redis):
    """One node, which knows no other yet."""

    def settings(self) -> list[str]:
        return [
            *super().settings(),
            "cluster-enabled yes",
            f"cluster-node-timeout {SILENCE}",
            # A replica takes over however long ago it last heard of its master, and stays with it
            # until then.
            "cluster-replica-validity-factor 0",
            "cluster-allow-replica-migration no",
        ]

    def listen(self) -> list[str]:
        # By default the nodes would talk to each other on ports that are 10000 higher, which
        # somebody may use and which may not even exist.
        return [*super().listen(), "--cluster-port", str(free_port())]

    def knows_all(self) -> bool:
        """Tell whether all slots are served, and clients are told of all nodes."""
        _, state = self.ask(self.cli("CLUSTER", "INFO"))
        _, nodes = self.ask(self.cli("CLUSTER", "NODES"))
        # Here a replica is missing until the node has heard that it has its copy.
        _, slots = self.ask(self.cli("CLUSTER", "SLOTS"))
        return (
            "cluster_state:ok" in state.split()
            and nodes.split().count("connected") == NODES
            and slots.split().count(HOST) == NODES
        )


class RedisCluster(Group):
    """Masters for a third of the slots each, and a replica of every one.

    The address names the nodes that are masters at first.
    """

    name = "redis-cluster"
    variable = "TEST_REDIS_CLUSTER_URL"
    packages = Redis.packages
    programs = Redis.programs

    def build(self) -> None:
        nodes = [ClusterNode() for _ in range(NODES)]
        for node in nodes:
            self.add(node)
        create = ["--cluster", "create", *(f"{HOST}:{node.port}" for node in nodes)]
        options = ["--cluster-replicas", str(REPLICAS), "--cluster-yes"]
        nodes[0].call(nodes[0].cli(*create, *options))
        for node in nodes:
            self.wait(node.knows_all, "the nodes to know each other")
        for node in nodes[MASTERS:]:
            self.wait(node.follows, "a replica to have its copy")

    def url(self) -> str:
        places = ",".join(f"{HOST}:{server.port}" for server in self.servers[:MASTERS])
        return f"redis+cluster://{self.user}:{self.password}@{places}"
