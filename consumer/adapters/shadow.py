"""Rehearsal: everything but what leaves the process. For `kochava-consumer run --shadow`."""

import asyncio
from collections.abc import Callable

from consumer.core.outcome import Answer
from consumer.core.record import Headers, Record
from consumer.ports import Answered, ForwardProblem, Request

_ACCEPTED = Answer(200, b'{"success":"1"}')


class ShadowTransport:
    """Answers every request as Kochava would, and sends none (`ports.Transport`)."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def send(self, request: Request, deadline: float, answered: Answered) -> None:  # noqa: ARG002 - the port has them
        self._loop.call_soon(answered, _ACCEPTED)

    async def close(self) -> None:
        """Nothing is open."""


class ShadowForwarder:
    """Acknowledges every record and produces none (`ports.Forwarder`): a rehearsal writes to no topic."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def forward(
        self,
        topic: str,  # noqa: ARG002 - the port has them
        record: Record,  # noqa: ARG002
        headers: Headers,  # noqa: ARG002
        reported: Callable[[ForwardProblem | None], None],
    ) -> None:
        self._loop.call_soon(reported, None)

    async def close(self, timeout_s: float) -> None:
        """Nothing is outstanding."""
