"""A real Apache Kafka with a second door: SASL_SSL with SCRAM-SHA-512, behind a certificate of a CA of its own.

Tests make topics and users, and look around, over the plain listener; the process under test goes through the other.
A session of the secure listener lives `REAUTHENTICATE_S` long: a client must show its password again, or is thrown out.
"""

from pathlib import Path

import trustme
from confluent_kafka.admin import (
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)

from tests.support.kafka import RealKafka, free_port

REAUTHENTICATE_S = 4
ITERATIONS = 4096


class SecureKafka(RealKafka):
    """`RealKafka` on `bootstrap_servers`, for the tests; `secure_servers` for who has a password."""

    def __init__(self, folder: Path) -> None:
        port, controller, secure = free_port(), free_port(), free_port()
        self.secure_servers = f"127.0.0.1:{secure}"
        self.ca_file = folder / "ca.pem"
        certificate = folder / "broker.pem"
        folder.mkdir(parents=True, exist_ok=True)
        authority = trustme.CA()
        authority.cert_pem.write_to_path(str(self.ca_file))
        authority.issue_cert("127.0.0.1", key_type=trustme.KeyType.ECDSA).private_key_and_cert_chain_pem.write_to_path(
            str(certificate)
        )
        _as_pkcs8(certificate)
        super().__init__(
            folder,
            port,
            {
                "controller.quorum.voters": f"1@127.0.0.1:{controller}",
                "listeners": f"PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller},"
                f"SASL_SSL://{self.secure_servers}",
                "advertised.listeners": f"PLAINTEXT://127.0.0.1:{port},SASL_SSL://{self.secure_servers}",
                "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SASL_SSL:SASL_SSL",
                "sasl.enabled.mechanisms": "SCRAM-SHA-512",
                "ssl.keystore.type": "PEM",
                "ssl.keystore.location": certificate,
                "connections.max.reauth.ms": REAUTHENTICATE_S * 1000,
                "listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config": (
                    "org.apache.kafka.common.security.scram.ScramLoginModule required;"
                ),
            },
        )

    def set_password(self, user: str, password: str) -> None:
        """Make *user*, or give it another password; sessions that are open stay open until they must be renewed."""
        mechanism = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, ITERATIONS)
        change = UserScramCredentialUpsertion(user, mechanism, password.encode())
        for future in self.admin.alter_user_scram_credentials([change]).values():
            future.result(30)


def _as_pkcs8(pem: Path) -> None:
    """Write the key in the one form that Kafka reads."""
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        NoEncryption,
        PrivateFormat,
        load_pem_private_key,
    )

    text = pem.read_bytes()
    key = load_pem_private_key(text, None).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    pem.write_bytes(key + text[text.index(b"-----BEGIN CERTIFICATE") :])
