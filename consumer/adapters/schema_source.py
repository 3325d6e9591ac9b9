"""Writer schemas from a Confluent-compatible registry.

An outage is not poison: whatever isn't a clear answer (no connection, 401, 403, 429, 5xx, a bare 404, odd JSON) is
asked again until it is, and the records wait. Only the registry's own "no such schema" (404 with `error_code` 40403)
ends a wait, and not at once: a registry that just restarted says so of every id, and so does one whose access rules
hide an id. It counts when it was seen again *confirm_s* later with no outage between, and when since the first time the
same credentials were given another schema, found by way of a subject if need be. A registry that shows us nothing at
all keeps blocking: that is a wrong address or a missing right, and dead letters would not mend it.
"""

import asyncio
import ssl
from base64 import b64encode
from collections.abc import Awaitable, Callable
from contextlib import suppress
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any, NamedTuple
from urllib.parse import quote

import httpx
import orjson
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_random_exponential

from consumer.core.schema_guard import MAX_REFERENCES, MAX_SCHEMA_BYTES, NoSchema, SchemaText
from consumer.core.wire_format import ByGuid, ById, SchemaReference
from consumer.ports import Clock

NO_SUCH_SCHEMA = 40403
FIRST_WAIT_S = 0.2
LONGEST_WAIT_S = 10.0
SUBJECTS_PATH = "/subjects?offset=0&limit=10"
"""A few suffice; a registry that doesn't know the parameters lists all."""
MAX_SUBJECTS_BYTES = 16_777_216
REPEAT_S = 60.0
"""A wait that goes on is reported again so often."""

OnState = Callable[[SchemaReference, bool, str], None]
"""Told of a schema, whether it is here, and else why not: at the first failure, every `REPEAT_S`, and at the end."""


class _UnavailableError(Exception):
    """Not a clear answer; ask again."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class _UnknownError(_UnavailableError):
    """The registry's own "no such schema", which may still be a lie."""

    def __init__(self) -> None:
        super().__init__("no_such_schema")


class _RefusedError(Exception):
    """A clear answer that we can never decode with."""


class _Stored(NamedTuple):
    """One schema as the registry stores it."""

    text: str
    references: tuple[tuple[str, int], ...]


class SchemaRegistry:
    """`avro_decoder.SchemaSource` over HTTP. One host, no redirects, cookies or proxies; bounded in time and size."""

    def __init__(
        self,
        url: str,
        *,
        clock: Clock,
        on_state: OnState,
        basic: tuple[str, str] | None = None,
        bearer: str | None = None,
        tls: ssl.SSLContext | None = None,
        timeout_s: float = 10.0,
        confirm_s: float = 30.0,
        max_answer_bytes: int = MAX_SCHEMA_BYTES,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """Prepare to ask the registry at *url*, which may have a path; nothing is sent yet.

        Args:
            url: the base; `schemas/ids/7` and the like are put behind it.
            clock: for `confirm_s`.
            on_state: told when a schema cannot be had, and when it is here.
            basic: user and password.
            bearer: a token.
            tls: whom to trust; by default the authorities that httpx brings.
            timeout_s: for one request as a whole.
            confirm_s: "no such schema" counts when it is still so after this long.
            max_answer_bytes: a larger answer is not read.
            sleep: waits between tries.
        """
        self._base = url.rstrip("/")
        self._clock = clock
        self._on_state = on_state
        self._timeout_s = timeout_s
        self._confirm_s = confirm_s
        self._max_answer_bytes = max_answer_bytes
        self._sleep = sleep
        self._last_given: tuple[SchemaReference, float] | None = None
        """The schema that the registry gave us last, and when."""
        headers = {"accept": "application/vnd.schemaregistry.v1+json, application/json", "accept-encoding": "identity"}
        if basic is not None:
            headers["authorization"] = "Basic " + b64encode(":".join(basic).encode()).decode()
        elif bearer is not None:
            headers["authorization"] = "Bearer " + bearer
        self._client = httpx.AsyncClient(
            headers=headers,
            cookies=CookieJar(policy=DefaultCookiePolicy(allowed_domains=[])),
            verify=tls if tls is not None else True,
            trust_env=False,
            follow_redirects=False,
            timeout=timeout_s,
            limits=httpx.Limits(max_connections=8, max_keepalive_connections=2),
        )

    async def fetch(self, reference: SchemaReference) -> SchemaText | NoSchema:
        """Return the schema behind *reference*, or that there is none for good. Waits out every outage."""
        path = _path_of(reference)
        if path is None:
            return NoSchema("schema_unknown", "a registry has no fingerprints")
        wait = _Wait(reference, self._clock, self._on_state)
        retrying = AsyncRetrying(
            retry=retry_if_exception_type(_UnavailableError),
            wait=wait_random_exponential(multiplier=FIRST_WAIT_S, max=LONGEST_WAIT_S),
            before_sleep=wait.failed,
            sleep=self._sleep,
        )
        answer: SchemaText | NoSchema
        try:
            answer = await retrying(self._ask_once, reference, path, wait)
        except _RefusedError as refused:
            answer = NoSchema("schema_refused", str(refused))
        self._on_state(reference, True, answer.reason if isinstance(answer, NoSchema) else "")
        return answer

    async def probe(self) -> str | None:
        """Ask once whether the registry answers to our credentials.

        Returns:
            None, or why it doesn't.
        """
        try:
            await self._get(SUBJECTS_PATH, MAX_SUBJECTS_BYTES)
        except (_UnavailableError, _RefusedError) as error:
            return str(error)
        return None

    async def close(self) -> None:
        with suppress(OSError):  # the library imports more on its way out, for which there may be no descriptor left
            await self._client.aclose()

    async def _ask_once(self, reference: SchemaReference, path: str, wait: "_Wait") -> SchemaText | NoSchema:
        try:
            return await self._with_references(reference, path)
        except _UnknownError:
            now = self._clock.monotonic()
            if wait.unknown_since is None:
                wait.unknown_since = now
            if now - wait.unknown_since < self._confirm_s:
                raise
        if not await self._gives_another(reference, wait.unknown_since):
            raise _UnavailableError("no_such_schema_and_no_other")
        return NoSchema("schema_unknown")

    async def _with_references(self, reference: SchemaReference, path: str) -> SchemaText:
        stored = await self._stored(path)
        self._last_given = (reference, self._clock.monotonic())
        texts: dict[tuple[str, int], str] = {}
        await self._collect(stored.references, texts, ())
        return SchemaText(stored.text, tuple(texts.values()))

    async def _collect(
        self,
        wanted: tuple[tuple[str, int], ...],
        texts: dict[tuple[str, int], str],
        above: tuple[tuple[str, int], ...],
    ) -> None:
        """Add the *wanted* schemas to *texts*, each behind those that it refers to itself."""
        for version in wanted:
            if version in above:
                raise _RefusedError("references that go in a circle")
            if version in texts:
                continue
            if len(texts) + len(above) >= MAX_REFERENCES:
                raise _RefusedError(f"more than {MAX_REFERENCES} references")
            subject, number = version
            # a deleted version still describes the records written with it
            stored = await self._stored(f"/subjects/{quote(subject, safe='')}/versions/{number}?deleted=true")
            await self._collect(stored.references, texts, (*above, version))
            texts[version] = stored.text

    async def _gives_another(self, reference: SchemaReference, since: float) -> bool:
        """Say whether our credentials have been given another schema since then, asking for one if need be."""
        if self._last_given is not None:
            other, given_at = self._last_given
            if given_at > since and other != reference:
                return True
            if other != reference and await self._is_given(other):
                return True
        try:
            subjects = await self._get(SUBJECTS_PATH, MAX_SUBJECTS_BYTES)
        except _RefusedError:
            raise _UnavailableError("no_such_schema_and_no_other") from None
        for subject in [name for name in subjects if isinstance(name, str)][:10] if isinstance(subjects, list) else []:
            try:
                latest = await self._get(f"/subjects/{quote(subject, safe='')}/versions/latest")
            except _UnavailableError:
                continue
            except _RefusedError:
                return True  # given, only too large for us
            number = latest.get("id") if isinstance(latest, dict) else None
            if isinstance(number, int) and ById(number) != reference and await self._is_given(ById(number)):
                return True
        return False

    async def _is_given(self, other: SchemaReference) -> bool:
        try:
            await self._stored(_path_of(other) or "")
        except _RefusedError:
            return True  # there it is, only not for us to decode with
        except _UnavailableError:
            return False
        self._last_given = (other, self._clock.monotonic())
        return True

    async def _stored(self, path: str) -> _Stored:
        body = await self._get(path)
        if not isinstance(body, dict) or not isinstance(body.get("schema"), str):
            raise _UnavailableError("odd_answer")
        if body.get("schemaType", "AVRO") != "AVRO":
            raise _RefusedError("not an Avro schema")
        references = body.get("references") or []
        try:
            return _Stored(body["schema"], tuple((str(each["subject"]), int(each["version"])) for each in references))
        except (TypeError, KeyError, ValueError):
            raise _UnavailableError("odd_answer") from None

    async def _get(self, path: str, max_bytes: int | None = None) -> Any:
        """Return the JSON of a 200. Everything else raises; nothing of a body or URL gets into the reason."""
        body = bytearray()
        limit = self._max_answer_bytes if max_bytes is None else max_bytes
        try:
            async with (
                asyncio.timeout(self._timeout_s),
                self._client.stream("GET", self._base + path) as response,
            ):
                async for chunk in response.aiter_raw():
                    body += chunk
                    if len(body) > limit:
                        break
        except (TimeoutError, httpx.TimeoutException):
            raise _UnavailableError("timeout") from None
        except (httpx.ConnectError, OSError):  # without descriptors not even the library's late imports work
            raise _UnavailableError("connect") from None
        except (httpx.HTTPError, httpx.InvalidURL):
            raise _UnavailableError("protocol") from None
        if len(body) > limit:
            if response.status_code == httpx.codes.OK:
                raise _RefusedError(f"the answer is larger than {limit} bytes")
            raise _UnavailableError(f"http_{response.status_code}")
        try:
            content = orjson.loads(body)
        except orjson.JSONDecodeError:
            content = None
        if response.status_code == httpx.codes.OK and content is not None:
            return content
        code = content.get("error_code") if isinstance(content, dict) else None
        if response.status_code == httpx.codes.NOT_FOUND and code == NO_SUCH_SCHEMA and path.startswith("/schemas/"):
            raise _UnknownError
        raise _UnavailableError("odd_answer" if response.is_success else f"http_{response.status_code}")


class _Wait:
    """What is remembered between the tries for one schema."""

    def __init__(self, reference: SchemaReference, clock: Clock, on_state: OnState) -> None:
        self.unknown_since: float | None = None
        self._reference = reference
        self._clock = clock
        self._on_state = on_state
        self._report_at = clock.monotonic()

    def failed(self, state: RetryCallState) -> None:
        """Between two tries: forget a "no such schema" that an outage followed, and report now and then."""
        error = state.outcome.exception() if state.outcome is not None else None
        reason = error.reason if isinstance(error, _UnavailableError) else ""
        if not reason.startswith("no_such_schema"):
            self.unknown_since = None
        now = self._clock.monotonic()
        if now >= self._report_at:
            self._report_at = now + REPEAT_S
            self._on_state(self._reference, False, reason)


def _path_of(reference: SchemaReference) -> str | None:
    match reference:
        case ById():
            return f"/schemas/ids/{reference.id}"
        case ByGuid():
            return f"/schemas/guids/{reference.guid}"
        case _:
            return None
