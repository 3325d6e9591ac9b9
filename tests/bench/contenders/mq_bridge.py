"""mq-bridge, a bridge in Rust, with a Kafka-to-HTTP route of its own: it posts the bytes of a record as they are.

Of `common.py` nothing is imported: the memory of its libraries would be counted here, and nothing of them is used.
"""

import json
import signal
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.bench.contenders.common import Orders

TASKS = 8
TASK_REQUESTS = 64
"""A task has one batch at a time and waits for all of it. Eight tasks of 8, or one of 512, were slower."""


def route(orders: "Orders") -> dict[str, Any]:
    """Return the route whose tasks have as many requests in flight together as *orders* has connections.

    One route with eight tasks, not eight routes: those would be members of the group, two of them without one of the
    topic's six partitions.
    """
    wanted = max(1, min(TASKS, orders.connections // TASK_REQUESTS))
    tasks = next(count for count in range(wanted, 0, -1) if orders.connections % count == 0)
    kafka = {
        "url": orders.bootstrap_servers,
        "topic": orders.topic,
        "group_id": orders.group,
        "consumer_options": [["auto.offset.reset", "earliest"], ["session.timeout.ms", "6000"]],
    }
    http: dict[str, Any] = {"url": orders.endpoint, "batch_concurrency": orders.connections // tasks}
    if orders.ca_file:
        http["tls"] = {"required": True, "ca_file": orders.ca_file}
    return {
        "input": {"kafka": kafka},
        "output": {"http": http},
        "concurrency": tasks,
        "batch_size": orders.in_flight // tasks,
    }


def main() -> None:
    from mq_bridge import Route  # not there where the tests run

    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # before its threads start: they inherit it
    with Route.from_config(route(SimpleNamespace(**json.loads(sys.argv[1])))):
        signal.sigwait({signal.SIGTERM})


if __name__ == "__main__":
    main()
