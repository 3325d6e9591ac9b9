"""The process in which records are decoded that could kill whoever decodes them: `decoder_process` starts it.

It has no state to lose and nothing worth stealing: no settings, no secrets, only two pipes to its parent, and they end
it when the parent ends. Every request brings its schema; compiled ones are kept. Frames, little-endian:

    hello     <I  0, once it can decode
    request   <II length of the schema (a pickle of `compile_reader`'s arguments), length of the body; both
    answer    <I  length of the answer; a pickle: the datum, or a text that says why there is none
"""

import pickle
import resource
import sys
from collections.abc import Callable
from functools import lru_cache
from struct import Struct

from consumer.core.avro_reader import Malformed, Reader, compile_reader, read_body
from consumer.core.schema_guard import MAX_DECODED_BYTES

MEMORY_BYTES = 201_326_592
"""Address space: the interpreter's, a datum's and its pickle's."""
MAX_FRAMES = 5_000
"""Python's own limit would stop the pickling of what is legal; the C stack holds several times as many."""
REQUEST = Struct("<II")
ANSWER = Struct("<I")

Decode = Callable[[bytes, bytes], bytes]


@lru_cache(maxsize=32)
def _reader(schema: bytes) -> Reader:
    return compile_reader(*pickle.loads(schema))  # noqa: S301  by our parent


def decode(schema: bytes, body: bytes) -> bytes:
    """Decode *body* and return the answer."""
    try:
        datum = read_body(_reader(schema), body, 0)
        answer = pickle.dumps(datum.reason if type(datum) is Malformed else datum, pickle.HIGHEST_PROTOCOL)
    except RecursionError:
        return pickle.dumps("too_deep")
    except MemoryError:
        return pickle.dumps("too_large")
    return answer if len(answer) <= MAX_DECODED_BYTES else pickle.dumps("too_large")


def serve(answer: Decode) -> None:
    """Answer requests, one after the other, until the parent is gone."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core dump would hold people's data
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    sys.setrecursionlimit(MAX_FRAMES)
    read, write, flush = sys.stdin.buffer.read, sys.stdout.buffer.write, sys.stdout.buffer.flush
    write(ANSWER.pack(0))
    flush()
    while len(head := read(REQUEST.size)) == REQUEST.size:
        schema_bytes, body_bytes = REQUEST.unpack(head)
        answered = answer(read(schema_bytes), read(body_bytes))
        write(ANSWER.pack(len(answered)) + answered)
        flush()


if __name__ == "__main__":
    serve(decode)
