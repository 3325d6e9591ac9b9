"""What the kernel says of a process and all it started, and what this machine is. Linux only."""

import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = ("confluent-kafka", "fastavro", "httptools", "httpx", "orjson", "uvloop")


def tree(pid: int) -> list[int]:
    """Return *pid* and all processes that descend from it."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and (fields := _stat(int(entry.name))):
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    found = [pid]
    for each in found:  # grows while it is walked
        found += children.get(each, [])
    return found


def _stat(pid: int) -> list[str]:
    """Return the fields from the state on; nothing if the process is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def cpu_s(pid: int) -> float:
    """Return the user and system seconds of *pid* and its descendants, those that ended included."""
    ticks = sum(sum(map(int, fields[11:15])) for each in tree(pid) if (fields := _stat(each)))
    return ticks / os.sysconf("SC_CLK_TCK")


def peak_mib(pid: int) -> float:
    """Return the sum of the most memory that *pid* and each of its descendants had resident."""
    total = 0.0
    for each in tree(pid):
        try:
            lines = Path(f"/proc/{each}/status").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))
    return total


def describe() -> dict[str, str]:
    """Return the machine and the versions, by name."""
    found = {"processor": _processor(), "cores": str(os.cpu_count()), "kernel": platform.release(),
             "Python": sys.version.split()[0]}  # fmt: skip
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
