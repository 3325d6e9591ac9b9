"""What is measured: each scenario is one sink and one load, the same for every contender."""

from dataclasses import dataclass

CONTENDERS = ("consumer", "floor", "httpx", "aiohttp", "mq-bridge", "faststream")


@dataclass(frozen=True, slots=True)
class Scenario:
    """A sink and a load. With a `rate_per_s` the load is steady and the age of events is what is looked at."""

    name: str
    about: str
    latency_ms: float = 20
    connections: int = 512
    in_flight: int = 0
    """Records at once; 0: twice the connections, at least 1,024."""
    partitions: int = 6
    is_tls: bool = False
    rate_per_s: int = 0
    has_slow: bool = False
    """One event in the middle is answered after seven seconds."""
    app_ids: int = 3
    """Each on four platforms."""
    schemas: int = 0
    """So many writer schemas, each with a field of its own; 0: the newest of ours, which the floor and rivals know."""
    keys: int = 0
    """So many record keys; 0: none."""
    order: str = "none"
    neighbour: str = ""
    """What one app is answered with: a status, or `slow`, or `never`; `ok` as all are. It isn't counted."""
    is_default: bool = False

    @property
    def in_flight_records(self) -> int:
        return self.in_flight or max(1024, 2 * self.connections)

    def events(self, wanted: int) -> int:
        """Return *wanted*, or what the connections can carry in ten seconds if that is less."""
        return min(wanted, round(10_000 * self.connections / self.latency_ms)) if self.latency_ms else wanted


ALL = (
    Scenario("http-20ms", "answers after 20 ms, 512 connections", is_default=True),
    Scenario("http-0ms", "answers at once, 64 connections", latency_ms=0, connections=64, is_default=True),
    Scenario("https-20ms", "TLS, answers after 20 ms, 512 connections", is_tls=True, is_default=True),
    Scenario("steady", "1,000 events/s, answers after 20 ms", rate_per_s=1000, is_default=True),
    Scenario("slow-answer", "as steady, one event is answered after 7 s", rate_per_s=1000, has_slow=True,
             is_default=True),
    Scenario("http-100ms", "answers after 100 ms, 2,000 connections", latency_ms=100, connections=2000),
    Scenario("in-flight-16", "answers after 20 ms, 16 records at once", connections=16, in_flight=16),
    Scenario("in-flight-256", "answers after 20 ms, 256 records at once", connections=256, in_flight=256),
    Scenario("in-flight-2000", "answers after 20 ms, 2,000 records at once", connections=2000, in_flight=2000),
    Scenario("partitions-1", "answers after 20 ms, 512 connections, 1 partition", partitions=1),
    Scenario("partitions-6", "answers after 20 ms, 512 connections, 6 partitions", partitions=6),
    Scenario("partitions-100", "answers after 20 ms, 512 connections, 100 partitions", partitions=100),
)  # fmt: skip
BY_NAME = {scenario.name: scenario for scenario in ALL}
