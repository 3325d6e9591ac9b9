"""A certificate that does not hold, on a real Apache Kafka: reading stops, nothing is lost, it goes on by itself."""

from pathlib import Path

import pytest
import trustme

from tests.support.certificates import PAST, pem, server_context, show
from tests.support.processes import SandboxProcess, Setup, events, wait_until
from tests.support.tls_front import tls_front

pytestmark = pytest.mark.kafka


@pytest.mark.parametrize("transport", ["fast", "httpx"])
def test_an_expired_certificate_stops_reading_until_it_is_replaced(
    setup: Setup, kochava: SandboxProcess, tmp_path: Path, transport: str
) -> None:
    """I7: a wrong endpoint burns no attempt and makes no dead letter; the breaker probes, and closes by itself."""
    authority = trustme.CA()
    ca_file = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(ca_file))
    context = server_context(pem(authority.issue_cert("localhost", not_after=PAST)), tmp_path)
    setup.create_topics()
    made = events(700)
    setup.kafka.produce(setup.topic, [value for _, value in made])
    environment = {
        "KOCHAVA_CONSUMER_KOCHAVA__CA_FILE": str(ca_file),
        "KOCHAVA_CONSUMER_DELIVERY__TRANSPORT": transport,
        "KOCHAVA_CONSUMER_DELIVERY__CONNECTIONS": "8",  # a slow machine must not make time-outs of its own
        "KOCHAVA_CONSUMER_DELIVERY__REQUEST_TIMEOUT_S": "6",
        "KOCHAVA_CONSUMER_DELIVERY__RETRY_BUDGET_S": "7",
    }
    with tls_front(context, int(kochava.url.rpartition(":")[2])) as port:
        setup.endpoint = f"https://localhost:{port}/track/json"
        with setup.consumer("consumer", **environment) as consumer:
            wait_until(lambda: consumer.logged("breaker.opened"), "the breaker opens")
            attempts = "kochava_delivery_attempts_total"
            seen = consumer.metric(attempts)
            wait_until(lambda: consumer.metric(attempts) >= seen + 3, "it is probed")
            assert {line["reason"] for line in consumer.logged("breaker.opened")} == {"tls"}
            assert consumer.metric("kochava_events_consumed_total") < 700, "reading stopped"
            wait_until(lambda: "breaker" in consumer.probe("/readyz")[1], "it says why it isn't ready")
            assert consumer.probe("/readyz")[0] == 503
            assert consumer.probe("/livez")[0] == 200
            assert kochava.requests == 0
            show(context, pem(authority.issue_cert("localhost")), tmp_path)
            wait_until(lambda: kochava.accepted() == {event_id for event_id, _ in made}, "all are delivered")
            wait_until(lambda: consumer.metric("kochava_events_in_flight") == 0, "all are settled")
            assert consumer.logged("breaker.closed")
            for end in ("retried", "held", "dead_lettered"):
                assert consumer.metric(f"kochava_events_{end}_total") == 0
            assert consumer.terminate() == 0
    assert kochava.duplicates() == 0
    for topic in (setup.dead_letter, setup.held, *map(setup.tier, setup.tiers)):
        assert [record for record in setup.kafka.read_all(topic) if record.value is not None] == []
