"""The trust that the transports are given: which authorities, and what is said when there are none."""

import ssl
from pathlib import Path

import pytest
import trustme

from consumer.adapters.tls import client_context
from consumer.errors import SettingsError


def test_only_the_named_authorities_are_trusted(tmp_path: Path) -> None:
    ca_file = tmp_path / "ca.pem"
    trustme.CA().cert_pem.write_to_path(str(ca_file))
    assert client_context(ca_file).cert_store_stats()["x509_ca"] == 1


def test_nothing_turns_verification_off(tmp_path: Path) -> None:
    ca_file = tmp_path / "ca.pem"
    trustme.CA().cert_pem.write_to_path(str(ca_file))
    context = client_context(ca_file)
    assert context.check_hostname
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2


@pytest.mark.parametrize(
    ("content", "message"), [(None, "No such file"), (b"", "no PEM certificate"), (b"not a certificate", "no PEM")]
)
def test_a_useless_ca_file_is_refused(tmp_path: Path, content: bytes | None, message: str) -> None:
    ca_file = tmp_path / "ca.pem"
    if content is not None:
        ca_file.write_bytes(content)
    with pytest.raises(SettingsError, match=message):
        client_context(ca_file)


def _paths(directory: Path) -> ssl.DefaultVerifyPaths:
    return ssl.DefaultVerifyPaths(None, None, "", str(directory / "cert.pem"), "", str(directory / "certs"))


def test_a_machine_without_authorities_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "certs").mkdir()
    monkeypatch.setattr(ssl, "get_default_verify_paths", lambda: _paths(tmp_path))
    with pytest.raises(SettingsError, match="install ca-certificates"):
        client_context()


def test_the_environment_does_not_choose_whom_we_trust(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trustme.CA().cert_pem.write_to_path(str(tmp_path / "cert.pem"))
    monkeypatch.setattr(ssl, "get_default_verify_paths", lambda: _paths(tmp_path))
    monkeypatch.setenv("SSL_CERT_FILE", "/nowhere")
    assert client_context().cert_store_stats()["x509_ca"] == 1
