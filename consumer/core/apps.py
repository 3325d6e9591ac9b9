"""Which configured app an event belongs to: app and platform beats app alone."""

from collections.abc import Mapping
from typing import TypeVar

App = TypeVar("App")


def choose_app(apps: Mapping[str, App], app: str | None, platform: str | None) -> tuple[str, App] | None:
    """Return the key and the entry of *apps* for an event, or None. Platforms are compared in lower case."""
    if not app:
        return None
    if platform:
        key = f"{app}/{platform.lower()}"
        found = apps.get(key)
        if found is not None:
            return key, found
    found = apps.get(app)
    return None if found is None else (app, found)
