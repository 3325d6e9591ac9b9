"""What producers send twice arrives once, and no event is lost for it."""

from random import Random

import pytest

from tests.support.processes import SandboxProcess, Setup, events, wait_until

pytestmark = pytest.mark.kafka

COUNT = 2_000
FAILING = "failing-"


def test_each_event_that_was_produced_twice_or_thrice_is_accepted_once(setup: Setup, kochava: SandboxProcess) -> None:
    """The copies stand close to one another and far apart, and some firsts fail before they are delivered."""
    setup.create_topics(partitions=1)
    setup.environment["KOCHAVA_CONSUMER_DEDUP__WINDOW_RECORDS"] = str(COUNT)
    kochava.set_rules({"match": {"id_prefix": FAILING, "first_tries": 1}, "do": {"status": 503}})
    made = events(COUNT) + events(100, FAILING)
    random = Random(7)
    values = [value for _, value in made for _ in range(random.choice([2, 3]))]
    near, far = values[: len(values) // 2], values[len(values) // 2 :]
    random.shuffle(far)
    setup.kafka.produce(setup.topic, near + far)
    with setup.consumer() as consumer:
        wait_until(
            lambda: setup.kafka.committed(setup.group).get((setup.topic, 0)) == len(values),
            "the commit reaches the end",
        )
        delivered = consumer.metric("kochava_events_delivered_total")
        filtered = consumer.metric("kochava_events_filtered_total", reason="duplicate")
        assert (delivered, filtered) == (len(made), len(values) - len(made))
        assert consumer.metric("kochava_events_consumed_total", topic=setup.topic) == len(values)
        assert consumer.terminate() == 0
    assert kochava.accepted() == {event_id for event_id, _ in made}
    assert kochava.duplicates() == 0
