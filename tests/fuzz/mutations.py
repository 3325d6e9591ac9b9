"""Where there is no coverage-guided fuzzer: the seeds and the kept corpus, changed here and there by hypothesis."""

from hashlib import sha1

from hypothesis import HealthCheck, given, seed as seeded, settings, strategies as st

from tests.fuzz.session import kept
from tests.fuzz.targets import Target

EXAMPLES = 500
"""For one seed."""


class Broken(Exception):
    """The contract did not hold for `data`, the smallest such input that was found; the cause says how."""

    def __init__(self, data: bytes) -> None:
        super().__init__()
        self.data = data
        self.name = sha1(data).hexdigest()


def mutated(inputs: list[bytes], words: list[bytes], max_bytes: int) -> st.SearchStrategy[bytes]:
    """Return inputs with up to four edits, each of which replaces a few bytes by a few others or by a word."""
    pieces = st.binary(max_size=6) | st.sampled_from(words)
    edits = st.lists(st.tuples(st.integers(0, max_bytes), st.integers(0, 4), pieces), max_size=4)

    def apply(data: bytes, changes: list[tuple[int, int, bytes]]) -> bytes:
        for at, length, piece in changes:
            start = at % (len(data) + 1)
            data = data[:start] + piece + data[start + length :]
        return data[:max_bytes]

    return st.builds(apply, st.sampled_from(inputs), edits)


def mutate(target: Target, name: str, seed: int) -> int:
    """Run *target* on mutations, and return how many they were.

    Raises:
        Broken: for the smallest input that breaks the contract.
    """
    inputs = [*target.SEEDS, *(path.read_bytes() for path in kept(name))]
    executions = 0
    last = b""

    @seeded(seed)
    @settings(max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(mutated(inputs, list(target.WORDS), target.MAX_BYTES))
    def run(data: bytes) -> None:
        nonlocal executions, last
        executions, last = executions + 1, data
        target.check(data)

    try:
        run()
    except Exception as error:
        raise Broken(last) from error
    return executions
