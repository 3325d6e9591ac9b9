"""A process apart for records that could kill whoever decodes them: it dies in our place, and is started again.

Answers come in the order of the requests, so when it dies, the first record without an answer is the one that it was
decoding. That record gets a second chance: once may be the machine's doing (an OOM killer, a person), twice is the
record's. A process that doesn't even start blames nobody: what is to be decoded waits.
"""

import asyncio
import os
import pickle
import sys
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from signal import SIGKILL
from typing import Any

from consumer.adapters.decoder_child import ANSWER, REQUEST
from consumer.core.avro_reader import Malformed
from consumer.core.schema_guard import MAX_DECODED_BYTES

CHILD = "consumer.adapters.decoder_child"
START_S = 30.0
"""For a process to come up."""
RECORD_S = 5.0
"""For one record; the largest take some tenths."""
RESTART_S = 1.0
"""No more than one start in so long, however many records kill: a start costs as much CPU as a thousand events."""
MAX_AHEAD = 32
"""Records in the pipes, so that neither side waits for the other."""
MAX_DEATHS = 2
CHUNK_BYTES = 65_536
_ENVIRONMENT = ("LD_LIBRARY_PATH", "PATH", "PYTHONHOME")
"""What Python may need to start. All else, secrets above all, stays here."""
_VALUES = {
    ("datetime", "date"), ("datetime", "datetime"), ("datetime", "time"), ("datetime", "timedelta"),
    ("datetime", "timezone"), ("decimal", "Decimal"), ("uuid", "UUID"),
}  # fmt: skip


class _Values(pickle.Unpickler):
    """Takes the values that Avro has and nothing else: what hostile bytes have made of the child can't reach us."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _VALUES:
            raise pickle.UnpicklingError("not a value of Avro")
        return super().find_class(module, name)


@dataclass(slots=True, eq=False, repr=False)
class _Errand:
    """One record on its way through the process."""

    request: bytes
    answer: asyncio.Future[Any]
    deaths: int = 0


class DecoderProcess:
    """`avro_decoder.ProcessApart`. Owned by the event loop; the process starts with the first record."""

    def __init__(
        self,
        died: Callable[[str], None],
        *,
        module: str = CHILD,
        record_s: float = RECORD_S,
        restart_s: float = RESTART_S,
    ) -> None:
        """Build it. *died* is told each time the process ends, and how: `signal_11`, `exit_1`, `timeout`, `OSError`."""
        self._told_death = died
        self._command = [sys.executable, "-s", "-P", "-m", module]
        self._record_s = record_s
        self._restart_s = restart_s
        self._waiting: deque[_Errand] = deque()
        self._sent: deque[_Errand] = deque()
        self._pipe: asyncio.StreamWriter | None = None
        """To a process that is up."""
        self._work = asyncio.Event()
        self._life: asyncio.Task[None] | None = None

    async def decode(self, schema: bytes, body: bytes) -> dict[str, object] | Malformed:
        """Decode *body* with *schema*, a pickle of `compile_reader`'s arguments."""
        loop = asyncio.get_running_loop()
        errand = _Errand(REQUEST.pack(len(schema), len(body)) + schema + body, loop.create_future())
        self._waiting.append(errand)
        if self._life is None:
            self._life = loop.create_task(self._live())
            self._life.add_done_callback(self._ended)
        self._work.set()
        self._send()
        try:
            answer = await errand.answer
        except asyncio.CancelledError:
            if errand in self._waiting:
                self._waiting.remove(errand)
            raise
        return Malformed(answer) if isinstance(answer, str) else answer

    async def close(self) -> None:
        """End the process. What is not decoded by now never is."""
        if self._life is not None:
            self._life.cancel()
            await asyncio.gather(self._life, return_exceptions=True)

    # -- one process after the other

    async def _live(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            while not self._waiting:
                self._work.clear()
                await self._work.wait()
            started = loop.time()
            try:
                process = await asyncio.create_subprocess_exec(
                    *self._command,
                    stdin=asyncio.subprocess.PIPE,
                    stdout=asyncio.subprocess.PIPE,
                    stderr=asyncio.subprocess.DEVNULL,  # a traceback may hold data
                    env={name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
                    | {"PYTHONPATH": str(Path(__file__).parents[2])},
                    start_new_session=True,  # a Ctrl-C at the terminal is for us, who drain first
                )
            except OSError as error:
                self._told_death(type(error).__name__)
            else:
                await self._use(process)
            await asyncio.sleep(started + self._restart_s - loop.time())

    async def _use(self, process: asyncio.subprocess.Process) -> None:
        """Decode in *process* until it is dead."""
        assert process.stdin is not None
        assert process.stdout is not None
        reason = "killed_decoder"
        try:
            async with asyncio.timeout(START_S):
                await process.stdout.readexactly(ANSWER.size)
            self._pipe = process.stdin
            self._send()
            received = bytearray()
            while True:
                while not self._sent:
                    self._work.clear()
                    await self._work.wait()
                async with asyncio.timeout(self._record_s):
                    received += await process.stdout.read(CHUNK_BYTES) or _end()
                for answer in _answers(received):
                    errand = self._sent.popleft()
                    if not errand.answer.done():
                        errand.answer.set_result(answer)
                self._send()
        except TimeoutError:
            reason = "decode_timeout"
        except (EOFError, OSError, pickle.UnpicklingError):
            pass
        finally:
            self._pipe = None
            if process.returncode is None:
                with suppress(ProcessLookupError):
                    os.kill(process.pid, SIGKILL)  # Process.kill() may reap it itself, and its exit code would be lost
            code = await process.wait()
        self._blame(reason)
        self._told_death("timeout" if reason == "decode_timeout" else f"signal_{-code}" if code < 0 else f"exit_{code}")

    def _send(self) -> None:
        """Keep the process busy."""
        while self._pipe is not None and self._waiting and len(self._sent) < MAX_AHEAD:
            errand = self._waiting.popleft()
            self._sent.append(errand)
            try:
                self._pipe.write(errand.request)
            except RuntimeError:  # uvloop has closed it: the process is dead, and whoever reads from it hears so
                self._pipe = None

    def _blame(self, reason: str) -> None:
        """Give all that the dead process had to the next one, but for a record that has killed before."""
        if self._sent:
            errand = self._sent[0]
            errand.deaths += 1
            if errand.deaths == MAX_DEATHS and not errand.answer.done():
                errand.answer.set_result(reason)
        self._waiting.extendleft(reversed([errand for errand in self._sent if not errand.answer.done()]))
        self._sent.clear()

    def _ended(self, life: asyncio.Task[None]) -> None:
        """Hand a bug of ours to those who wait, so that it ends the process."""
        error = None if life.cancelled() else life.exception()
        for errand in [*self._sent, *self._waiting]:
            if error is None:
                errand.answer.cancel()
            elif not errand.answer.done():
                errand.answer.set_exception(error)


def _end() -> bytes:
    raise EOFError


def _answers(received: bytearray) -> Iterator[dict[str, object] | str]:
    """Take the whole answers off *received*."""
    while len(received) >= ANSWER.size:
        (size,) = ANSWER.unpack_from(received)
        end = ANSWER.size + size
        if size > MAX_DECODED_BYTES:
            raise pickle.UnpicklingError("more than it may answer")
        if len(received) < end:
            return
        try:
            answer = _Values(BytesIO(received[ANSWER.size : end])).load()
        except Exception:  # noqa: BLE001  garbage can raise anything; whose memory is corrupt counts as dead
            raise pickle.UnpicklingError("not an answer") from None
        del received[:end]
        yield answer
