"""One target in a process of its own, started by `tests.fuzz.session`: `HOW TARGET WRONG SECONDS FOLDER FLAGS...`.

Guided by coverage (atheris) where the fuzzer exists, else by mutations of the kept corpus. Nothing of ours is imported
before the instrumentation is in place.
"""

import logging
import sys
import time
import traceback
import warnings
from pathlib import Path
from types import CodeType
from typing import Any

GUIDED, MUTATED = "guided", "mutated"


def _load(name: str, wrong: str) -> Any:
    if wrong != "none":
        from tests.fuzz.wrong import BUILDS

        BUILDS[wrong].plant()
    from tests.fuzz.targets import load

    return load(name)


def _guided(name: str, wrong: str, flags: list[str]) -> None:
    import atheris

    def instrumented_exec(source: str | CodeType, scope: dict[str, Any]) -> None:
        code = compile(source, "<generated>", "exec") if isinstance(source, str) else source
        exec(atheris.patch_code(code, True, True), scope)

    with atheris.instrument_imports(include=["consumer"]):
        from consumer.core import avro_reader, mapping_code

        for module in (avro_reader, mapping_code):  # the code that they write counts as covered code, too
            vars(module)["exec"] = instrumented_exec
        target = _load(name, wrong)
    atheris.Setup([sys.argv[0], *flags], target.check)
    atheris.Fuzz()


def _mutated(name: str, wrong: str, seconds: float, folder: Path) -> None:
    """Say what libFuzzer would say, as far as `session` reads it."""
    from tests.fuzz.mutations import Broken, mutate

    target = _load(name, wrong)
    begins, executions, seed = time.monotonic(), 0, 0
    try:
        while seed == 0 or time.monotonic() < begins + seconds:
            executions += mutate(target, name, seed)
            seed += 1
    except Broken as broken:
        (folder / f"crash-{broken.name}").write_bytes(broken.data)
        print("=== Uncaught Python exception: ===")
        traceback.print_exception(broken.__cause__, file=sys.stdout)
        sys.exit(77)
    per_second = executions / (time.monotonic() - begins)
    print(f"stat::number_of_executed_units: {executions}\nstat::average_exec_per_sec: {per_second:.0f}")


def main() -> None:
    how, name, wrong, seconds, folder, *flags = sys.argv[1:]
    logging.disable()
    warnings.simplefilter("ignore")
    if how == GUIDED:
        _guided(name, wrong, flags)
    else:
        _mutated(name, wrong, float(seconds), Path(folder))


if __name__ == "__main__":
    main()
