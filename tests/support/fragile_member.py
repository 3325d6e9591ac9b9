"""`kochava-consumer`, whose process apart decodes by fastavro and dies of deep records. Only tests start it."""

from functools import partial

from consumer import parts
from consumer.__main__ import main
from consumer.adapters.decoder_process import DecoderProcess

if __name__ == "__main__":
    parts.DecoderProcess = partial(DecoderProcess, module="tests.support.fragile_child")  # type: ignore[misc]
    main()
