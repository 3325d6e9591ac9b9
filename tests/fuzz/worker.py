"""One target under the fuzzer, in a process of its own: `python -m tests.fuzz.worker TARGET WRONG FLAGS...`.

Started by `tests.fuzz.session`. Imports nothing of ours before the instrumentation is in place.
"""

import logging
import sys
import warnings
from types import CodeType, ModuleType
from typing import Any

import atheris


def _instrument_generated(module: ModuleType) -> None:
    """Make the code that *module* writes and executes count as covered code, too."""

    def instrumented_exec(source: str | CodeType, scope: dict[str, Any]) -> None:
        code = compile(source, "<generated>", "exec") if isinstance(source, str) else source
        exec(atheris.patch_code(code, True, True), scope)

    module.exec = instrumented_exec


def main() -> None:
    name, wrong, *flags = sys.argv[1:]
    logging.disable()
    warnings.simplefilter("ignore")
    with atheris.instrument_imports(include=["consumer"]):
        from consumer.core import avro_reader, mapping_code

        _instrument_generated(avro_reader)
        _instrument_generated(mapping_code)
        if wrong != "none":
            from tests.fuzz.wrong import BUILDS

            BUILDS[wrong].plant()
        from tests.fuzz.targets import load

        target = load(name)
    atheris.Setup([sys.argv[0], *flags], target.check)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
