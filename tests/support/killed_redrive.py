"""`kochava-consumer` with small transactions, that stops at a moment of the third one. Only tests start it.

KILLED_AT is `inside` (all was sent, nothing committed), `between` (committed, the next one not begun), or the name of a
file: then it makes that file within the transaction, and goes on when it is gone.
"""

import os
import signal
import sys
import time
from pathlib import Path

from consumer import redrive
from consumer.__main__ import main
from consumer.adapters import kafka_redrive
from consumer.adapters.kafka_redrive import TransactionalSender

KILLED_IN = 3
BATCH_RECORDS = 20


class Killed(TransactionalSender):
    """Ends the process at its moment."""

    _batches = 0

    def _commit(self) -> None:
        self._batches += 1
        moment = os.environ["KILLED_AT"]
        if self._batches != KILLED_IN:
            super()._commit()
            return
        self._producer.flush(30)
        if moment == "between":
            super()._commit()
        if moment in {"inside", "between"}:
            os.kill(os.getpid(), signal.SIGKILL)
        gate = Path(moment)
        gate.touch()
        while gate.exists():
            time.sleep(0.01)
        super()._commit()


if __name__ == "__main__":
    redrive.BATCH_RECORDS = BATCH_RECORDS
    kafka_redrive.TransactionalSender = Killed  # type: ignore[misc]
    kafka_redrive.COMMIT_S = kafka_redrive.ABORT_S = 2.0
    sys.exit(main())
