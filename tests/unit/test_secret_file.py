"""A secret in a file that changes: what is followed, what is ignored, and what nobody is told."""

import io
import os
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest
import structlog
from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient

from consumer.adapters.kafka_client import make_client
from consumer.adapters.kafka_password import PasswordFile
from consumer.errors import ExitCode, SettingsError
from consumer.secret_file import SecretFile, UnusableSecretError
from consumer.telemetry import configure_logging

SECRET = "s3cret-CANARY"


class Clock:
    now = 0.0

    def monotonic(self) -> float:
        return self.now

    def wall_ms(self) -> int:
        return 0


@pytest.fixture
def told() -> Iterator[io.StringIO]:
    config, stream = structlog.get_config(), io.StringIO()
    configure_logging("debug", "json", stream, strict=True)
    yield stream
    structlog.configure(**config)


@pytest.mark.parametrize(
    ("content", "secret"),
    [
        (b"pw", "pw"),
        (b"pw\n", "pw"),
        (b"pw\r\n", "pw"),
        (b"pw\n\n", "pw\n"),
        (b" p w ", " p w "),
        ("pä".encode(), "pä"),
    ],
)
def test_one_line_end_behind_it_is_an_editors(tmp_path: Path, content: bytes, secret: str) -> None:
    (tmp_path / "secret").write_bytes(content)
    found = SecretFile(tmp_path / "secret")
    assert found.get_secret_value() == secret
    assert secret not in repr(found) + str(found)


@pytest.mark.parametrize("content", [b"", b"\n", b"\r\n", b"pw\xff", b"p\x00w"])
def test_what_can_be_no_secret_is_refused_without_its_content(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "secret").write_bytes(content)
    with pytest.raises(UnusableSecretError, match=r"^the file is empty$|^the file cannot be read \(not text\)$"):
        SecretFile(tmp_path / "secret")


def test_a_password_is_followed_as_the_kubelet_changes_it(tmp_path: Path, told: io.StringIO) -> None:
    """A mounted Secret is a link to a link to a folder; the middle one is replaced."""
    for number, password in enumerate(("first", "second")):
        (tmp_path / f"..{number}").mkdir()
        (tmp_path / f"..{number}" / "password").write_text(password)
    (tmp_path / "..data").symlink_to("..0")
    (tmp_path / "password").symlink_to("..data/password")
    followed = PasswordFile(SecretFile(tmp_path / "password"), Clock())
    assert followed.look() is None, "nothing has changed"
    (tmp_path / "..tmp").symlink_to("..1")
    (tmp_path / "..tmp").replace(tmp_path / "..data")
    assert followed.look() == "second"
    assert followed.look() is None, "told once"
    os.utime(tmp_path / "password")
    assert followed.look() is None, "another time, the same password"
    assert told.getvalue() == ""


@pytest.mark.parametrize("damage", [lambda at: at.write_bytes(b""), lambda at: at.write_bytes(b"\xff"), Path.unlink])
def test_a_file_without_a_password_changes_nothing_and_is_told(tmp_path: Path, told: io.StringIO, damage) -> None:
    file, clock = tmp_path / "password", Clock()
    file.write_text(SECRET)
    followed = PasswordFile(SecretFile(file), clock)
    damage(file)
    for clock.now in range(59):
        assert followed.look() is None
    (line,) = map(orjson.loads, told.getvalue().splitlines())
    assert (line["event"], line["count"]) == ("credentials.unusable", 1)
    assert str(tmp_path) not in told.getvalue()
    clock.now = 61
    assert followed.look() is None
    assert orjson.loads(told.getvalue().splitlines()[-1])["count"] == 59
    file.write_text(SECRET)
    assert followed.look() is None, "the one before has come back"
    file.write_text("another")
    assert followed.look() == "another"


@pytest.mark.parametrize("kind", [Consumer, Producer, AdminClient])
@pytest.mark.parametrize(
    ("properties", "says"),
    [
        ({"nonsense": "x"}, 'No such configuration property: "nonsense"'),
        ({"security.protocol": SECRET}, 'Invalid value "..." for configuration property "security.protocol"'),
        ({"security.protocol": "SASL_SSL", "sasl.mechanism": SECRET}, "Unsupported SASL mechanism: ..."),
        ({"security.protocol": "SSL", "ssl.key.pem": SECRET}, "ssl.key.pem failed"),
        ({"security.protocol": "SSL", "ssl.ca.location": f"/nowhere/{SECRET}"}, "ssl.ca.location failed"),
    ],
)
def test_a_property_that_the_client_refuses_is_a_problem_of_the_settings(kind, properties, says: str) -> None:
    conf = {"bootstrap.servers": "127.0.0.1:9", "group.id": "g", "log_level": 0, **properties}
    with pytest.raises(SettingsError) as refused:
        make_client(kind, {name: of for name, of in conf.items() if kind is Consumer or name != "group.id"})
    assert refused.value.exit_code is ExitCode.SETTINGS
    assert says in str(refused.value)
    assert SECRET not in str(refused.value)
