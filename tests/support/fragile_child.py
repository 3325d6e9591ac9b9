"""A decoder that can be killed, to stand where ours does: fastavro's own reader, and bodies that are commands.

fastavro reads a record 5,000 levels deep into a segmentation fault, and a record with `spill-` in it ends with a
traceback that holds it all. Commands, after the schema `b"command"`:

    hang            never answers
    first PATH      never answers, the first time: writes its process id to PATH; then answers "second"
    who             answers with its environment and open files
    garbage         answers with what is no pickle
    foreign         answers with a pickle of a class that no Avro value has
"""

import os
import pickle
import signal
from io import BytesIO
from pathlib import Path

from fastavro import parse_schema, schemaless_reader

from consumer.adapters.decoder_child import serve


def answer(schema: bytes, body: bytes) -> bytes:
    if b"spill-" in body:
        raise ValueError(body)
    if schema != b"command":
        parsed, *_ = pickle.loads(schema)
        return pickle.dumps(schemaless_reader(BytesIO(body), parse_schema(parsed), None))
    match body.decode().split():
        case ["first", path] if Path(path).exists():
            return pickle.dumps("second")
        case ["first", path]:
            Path(path + ".new").write_text(str(os.getpid()))
            Path(path + ".new").rename(path)
        case ["who"]:
            files = [str(link.readlink()) for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
            return pickle.dumps({"environment": dict(os.environ), "files": files, "pid": os.getpid()})
        case ["garbage"]:
            return b"\xff" * 10
        case ["foreign"]:
            return pickle.dumps(Path())
    while True:
        signal.pause()


if __name__ == "__main__":
    serve(answer)
