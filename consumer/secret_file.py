"""A secret that stands in a file, and can be read from it again: a mounted Secret changes while the process runs."""

from pathlib import Path
from typing import Self

from pydantic import SecretStr


class UnusableSecretError(Exception):
    """The file holds nothing that could be a secret. The message says why, and neither path nor content."""


class SecretFile(SecretStr):
    """What *path* held when it was read. Hides itself as every SecretStr does."""

    def __init__(self, path: Path) -> None:
        """Read *path*; one line end behind the secret is an editor's.

        Raises:
            UnusableSecretError: it cannot be read, is empty, or is no text.
        """
        super().__init__(_read(path))
        self.path = path

    def again(self) -> Self:
        """Return what the file holds now; raises as the constructor does."""
        return type(self)(self.path)


def _read(path: Path) -> str:
    try:
        text = path.read_text("utf-8")
    except OSError as error:
        raise UnusableSecretError(f"the file cannot be read ({error.strerror})") from None
    except ValueError:  # not UTF-8, or a path that is none
        raise UnusableSecretError("the file cannot be read (not text)") from None
    secret = text.removesuffix("\n").removesuffix("\r")
    if not secret:
        raise UnusableSecretError("the file is empty")
    if "\0" in secret:
        raise UnusableSecretError("the file cannot be read (not text)")
    return secret
