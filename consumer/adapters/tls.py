"""Whom we trust: the one `ssl.SSLContext` that both transports verify Kochava with.

Chain and host name are always verified and TLS is 1.2 or newer; no setting turns that off. The certificate authorities
are the machine's or those of one configured file, never what an environment variable happens to name.
"""

import ssl
from pathlib import Path

from consumer.errors import SettingsError


def client_context(ca_file: Path | None = None) -> ssl.SSLContext:
    """Return a context that trusts the authorities of *ca_file* (PEM) alone, or without it those of the machine.

    Raises:
        SettingsError: *ca_file* cannot be read or holds no certificate, or the machine has no authorities.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # verifies chain and host name
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    if ca_file is None:
        _trust_the_machine(context)
    else:
        try:
            context.load_verify_locations(cafile=ca_file)
        except ssl.SSLError:
            raise SettingsError([f"CA file {ca_file}: holds no PEM certificate; expected BEGIN CERTIFICATE"]) from None
        except OSError as error:
            raise SettingsError([f"CA file {ca_file}: {error.strerror or error}"]) from None
    return context


def _trust_the_machine(context: ssl.SSLContext) -> None:
    # where OpenSSL was built to look: set_default_verify_paths would prefer SSL_CERT_FILE, and be silent if it is gone
    paths = ssl.get_default_verify_paths()
    ca_file, ca_directory = Path(paths.openssl_cafile), Path(paths.openssl_capath)
    has_file = ca_file.is_file()
    has_directory = ca_directory.is_dir() and any(ca_directory.iterdir())
    if not has_file and not has_directory:
        raise SettingsError(
            [f"no certificate authorities in {ca_file} or {ca_directory}: install ca-certificates, or name a CA file"]
        )
    context.load_verify_locations(cafile=ca_file if has_file else None, capath=ca_directory if has_directory else None)
