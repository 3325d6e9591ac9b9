"""`python -m tests.simulation --seeds 100000`: many schedules, and what came of them."""

import argparse
import sys
import time
from collections import Counter

from tests.chaos.wrong import BUILDS
from tests.simulation.schedule import play


def explain(seed: int) -> str:
    """Play *seed* again and tell its story."""
    played = play(seed, tracing=True)
    story = "\n".join(played.trace[-400:])
    return (
        f"{story}\nseed {seed}: {played.violation}\nagain: python -m tests.simulation --first {seed} --seeds 1 --trace"
    )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=2000)
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("--trace", action="store_true", help="tell all that happens")
    parser.add_argument("--wrong", choices=[*BUILDS], help="a build with a mistake, which must be caught")
    parser.add_argument("--go-on", action="store_true", help="do not stop at the first seed that fails")
    given = parser.parse_args()
    if given.wrong:
        BUILDS[given.wrong][0]()
    began, cpu = time.monotonic(), time.process_time()
    explained: Counter[str] = Counter()
    totals: Counter[str] = Counter()
    failed = []
    for seed in range(given.first, given.first + given.seeds):
        played = play(seed, tracing=given.trace)
        if given.trace:
            print("\n".join(played.trace))
        explained += played.explained
        totals.update({"records": played.records, "commits": played.commits, "sent twice": played.sent_twice,
                       "events": played.events, "faults": sum(played.faults.values())})  # fmt: skip
        if played.violation:
            failed.append(seed)
            print(f"seed {seed}: {played.violation}", flush=True)
            if not given.go_on:
                break
    done = seed - given.first + 1
    spent, cpu = time.monotonic() - began, time.process_time() - cpu
    print(f"{done} schedules in {spent:.1f} s, {cpu:.1f} s of CPU: {done / cpu * 60:.0f} a minute of one core; "
          f"{len(failed)} failed {failed[:20]}")  # fmt: skip
    print(", ".join(f"{name} {count}" for name, count in totals.items()))
    print("second outcomes: " + ", ".join(f"{reason} {count}" for reason, count in explained.most_common()))
    return 5 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
