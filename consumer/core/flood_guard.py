"""The dead-letter rate has a limit: a bad deploy must not turn the whole topic into the dead-letter topic (I8)."""

from dataclasses import dataclass, field

from consumer.core.window import ShareWindow


@dataclass(slots=True)
class FloodGuard:
    """Trips when more than *max_share* of the last *window_records* ended as dead letters.

    And not before there are *min_dead_letters*: the first bad records of a quiet topic are no flood. Once tripped it
    stays so until the process is restarted: a person must look.
    """

    max_share: float
    window_records: int
    min_dead_letters: int
    is_tripped: bool = False
    _window: ShareWindow = field(init=False)

    def __post_init__(self) -> None:
        self._window = ShareWindow(self.window_records)

    @property
    def share(self) -> float:
        return self._window.share

    def note(self, dead: bool) -> bool:
        """Count one ended record.

        Returns:
            Whether this one tripped the guard.
        """
        window = self._window
        window.add(dead)
        if not dead or self.is_tripped or window.marked < self.min_dead_letters:
            return False
        self.is_tripped = window.share > self.max_share
        return self.is_tripped
