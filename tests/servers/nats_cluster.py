"""Three NATS servers on loopback that form one JetStream cluster."""

from typing import Self

import httpx

from tests.servers.nats import Nats
from tests.servers.ports import free_port
from tests.support import until

SIZE = 3
FORMED_SECONDS = 60.0


class NatsCluster:
    """Each node can be killed, frozen and started again by itself: see `nodes`."""

    def __init__(self, sync: str = "always") -> None:
        routes = [free_port() for _ in range(SIZE)]
        known = ", ".join(f'"nats://127.0.0.1:{port}"' for port in routes)
        self.nodes = []
        for number, port in enumerate(routes, 1):
            route = f'{{ name: loop, listen: "127.0.0.1:{port}", routes: [{known}] }}'
            node = Nats(settings={"server_name": f"n{number}", "cluster": route})
            node.sync = sync
            self.nodes.append(node)

    @property
    def urls(self) -> list[str]:
        return [node.url for node in self.nodes]

    @property
    def url(self) -> str:
        """All of them, as one agent's address."""
        return ",".join(self.urls)

    @property
    def monitors(self) -> str:
        return ",".join(node.monitor for node in self.nodes)

    def start(self) -> Self:
        """The nodes see each other and have a leader when this returns. Raises `Unavailable`."""
        for node in self.nodes:
            node.start()
        self.formed()
        return self

    def formed(self) -> None:
        """Wait until every running node says that its JetStream is current."""
        until(self._healthy, within=FORMED_SECONDS, what="the cluster has a leader", every=0.1)

    def leader_of(self, stream: str) -> Nats:
        """The node that leads a stream."""
        what = f"{stream} has a leader"
        leader = until(lambda: self._leader_of(stream), within=FORMED_SECONDS, what=what, every=0.1)
        assert leader is not None
        return leader

    def remove(self) -> None:
        for node in self.nodes:
            node.remove()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.remove()

    def _healthy(self) -> bool:
        running = [node for node in self.nodes if node.running]
        try:
            return all(httpx.get(f"{node.monitor}/healthz", timeout=2).status_code == 200 for node in running)
        except httpx.HTTPError:
            return False

    def _leader_of(self, stream: str) -> Nats | None:
        for node in self.nodes:
            if not node.running:
                continue
            try:
                said = node.ask("jsz?streams=true&accounts=true")
            except httpx.HTTPError:
                continue
            for account in said.get("account_details") or ():
                for detail in account.get("stream_detail") or ():
                    if detail["name"] == stream:
                        return self._named(detail.get("cluster", {}).get("leader"))
        return None

    def _named(self, name: str | None) -> Nats | None:
        return next((node for node in self.nodes if node.settings["server_name"] == name and node.running), None)
