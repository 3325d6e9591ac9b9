"""The Kafka password while we run: a mounted Secret changes, and every client must know before it connects again.

Connections that are open stay open. What is in use stays in use while the file holds nothing that could be a password:
a Secret that is being written, or was emptied by mistake, must not stop a process that works.
"""

from consumer.ports import Clock
from consumer.secret_file import SecretFile, UnusableSecretError
from consumer.telemetry import Repeated, log


class PasswordFile:
    """Says when the password has changed. `look` at it now and then."""

    def __init__(self, secret: SecretFile, clock: Clock) -> None:
        self._secret = secret
        self._clock = clock
        self._repeated = Repeated(60.0)

    def look(self) -> str | None:
        """Return the password, if it is another one than before."""
        try:
            found = self._secret.again()
        except UnusableSecretError as error:
            count = self._repeated.due(str(error), self._clock.monotonic())
            if count:
                log.warning("credentials.unusable", reason=str(error), count=count)
            return None
        if found.get_secret_value() == self._secret.get_secret_value():
            return None
        self._secret = found
        return found.get_secret_value()
