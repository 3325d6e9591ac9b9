"""`kochava-consumer` with a bug in it: an exception whose text and locals hold a record. Only tests start it so.

python -m tests.support.buggy PLACE run --config FILE
"""

import gc
import sys
import threading
from typing import Any

from consumer.__main__ import main
from consumer.adapters.kafka_source import KafkaSource
from consumer.core.record import Record
from consumer.translate import Translator

_translate, _hand_over = Translator.translate, KafkaSource._hand_over


def _explode(record: Record) -> None:
    value, headers = record.value, dict(record.headers)
    raise ValueError(f"cannot translate {value!r} with {headers}")


class _Unraisable:
    def __init__(self, record: Record) -> None:
        self._record = record

    def __del__(self) -> None:
        _explode(self._record)


def _on_the_loop(self: Translator, record: Record) -> Any:
    """Fail where nobody catches it, after a thread and a finalizer of the same event have."""
    if record.value is None:  # the group's own mark holds nothing to tell
        return _translate(self, record)
    thread = threading.Thread(target=_explode, args=(record,))
    thread.start()
    thread.join()
    _Unraisable(record)
    gc.collect()
    return _explode(record)


def _on_the_kafka_thread(self: KafkaSource, messages: Any) -> None:
    for message in (messages := list(messages)):
        if message.value() is not None:
            _explode(Record("", 0, 0, 0, message.key(), message.value(), tuple(message.headers() or ())))
    _hand_over(self, messages)


if __name__ == "__main__":
    place = sys.argv.pop(1)
    if place == "loop":
        Translator.translate = _on_the_loop  # type: ignore[method-assign]
    else:
        KafkaSource._hand_over = _on_the_kafka_thread  # type: ignore[method-assign]
    main()
