"""Who the server is and whom it lets in: certificates, trusted clients, users."""

import hmac
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from foundation.errors import InputError, printable, refused_by_system
from foundation.secret_file import read_secret
from plant.outputs.opcua.config import OpcuaConfig, SecurityPolicy, policies_of

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
    from cryptography.x509 import Certificate

_log = logging.getLogger(__name__)
_MOST_BYTES: Final = 64 * 1024
_LEAST_BITS: Final = 2048
_SOON: Final = timedelta(days=30)


@dataclass(frozen=True)
class LocalUser:
    """Somebody who may log in.

    Attributes:
        name: of the user; "anonymous" without one.
        control: whether the user may select products.
        password: None where a certificate is shown instead.
        certificate: in DER.
    """

    name: str
    control: bool = False
    password: str | None = None
    certificate: bytes | None = None


@dataclass(frozen=True)
class Security:
    """What the config says about security, read and checked.

    Attributes:
        policies: that are offered.
        certificate: the server's; None where nothing is encrypted.
        key: its private key.
        uri: the application's name of itself: what the certificate says, else made of the line's name.
        trusted: folder of the clients' certificates.
        users: by name.
        anonymous: whether those without a user may read.
    """

    policies: tuple[SecurityPolicy, ...]
    certificate: "Certificate | None"
    key: "RSAPrivateKey | None"
    uri: str
    trusted: Path | None
    users: Mapping[str, LocalUser]
    anonymous: bool

    @property
    def encrypts(self) -> bool:
        """Whether a policy is offered that encrypts."""
        return self.certificate is not None

    def user_of(self, name: str | None, password: str | None, certificate: bytes | None) -> LocalUser | None:
        """Find who logs in; None when nobody is let in so."""
        if name is not None:
            user = self.users.get(name)
            wanted = user.password if user is not None and user.password is not None else ""
            same = hmac.compare_digest(wanted.encode(), (password or "").encode())
            return user if wanted and same else None
        if certificate is not None:
            now = datetime.now(UTC)
            found = next((user for user in self.users.values() if user.certificate == certificate), None)
            return found if found is not None and is_valid_at(certificate, now) else None
        return LocalUser("anonymous") if self.anonymous else None


def is_valid_at(der: bytes, moment: datetime) -> bool:
    """Whether a certificate holds at a moment."""
    from cryptography import x509

    certificate = x509.load_der_x509_certificate(der)
    return certificate.not_valid_before_utc <= moment <= certificate.not_valid_after_utc


def read_security(file: Path, config: OpcuaConfig, line: str) -> Security:
    """Read and check what the config names.

    Args:
        file: the config.
        config: its section.
        line: name of the line.

    Raises:
        InputError: a file is missing or of no use, or keys contradict one another.
    """
    policies = policies_of(config)
    encrypting = [policy for policy in policies if policy != "None"]
    if not config.users and not config.anonymous:
        raise InputError(
            f"{file}: opcua.users: missing; expected users, or anonymous: true: nobody could log in"
        )
    certificate, key, uri = None, None, f"urn:inspectd:{line}"
    if encrypting:
        if config.certificate is None or config.certificate_key is None:
            missing = "certificate" if config.certificate is None else "certificate_key"
            raise InputError(
                f"{file}: opcua.{missing}: missing; expected it for {', '.join(encrypting)}; or, without "
                "encryption, security: [None]"
            )
        if config.trusted is None:
            raise InputError(
                f"{file}: opcua.trusted: missing; expected the folder with the certificates of clients"
            )
        certificate, key, uri = _own(file, config.certificate, config.certificate_key)
        _check_trusted(file, config.trusted)
    else:
        for name in ("certificate", "certificate_key", "trusted"):
            if getattr(config, name) is not None:
                raise InputError(
                    f"{file}: opcua.{name}: found beside security {list(policies)}; expected a policy that "
                    "encrypts, too"
                )
    users = {
        name: LocalUser(
            name,
            user.control,
            None
            if user.password is None
            else read_secret(file, f"opcua.users.{name}.password", user.password),
            None
            if user.certificate is None
            else _der(_certificate(f"{file}: opcua.users.{name}.certificate", user.certificate)),
        )
        for name, user in config.users.items()
    }
    return Security(policies, certificate, key, uri, config.trusted, users, config.anonymous)


def _own(file: Path, certificate_file: Path, key_file: Path) -> tuple["Certificate", "RSAPrivateKey", str]:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

    where = f"{file}: opcua.certificate: {certificate_file}"
    certificate = _certificate(f"{file}: opcua.certificate", certificate_file)
    public = certificate.public_key()
    if not isinstance(public, RSAPublicKey) or public.key_size < _LEAST_BITS:
        raise InputError(f"{where} has another key than RSA with at least {_LEAST_BITS} bits")
    key = _private_key(f"{file}: opcua.certificate_key", key_file)
    if key.public_key() != public:
        raise InputError(f"{file}: opcua.certificate_key: {key_file} is not the key of {certificate_file}")
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    except x509.ExtensionNotFound:
        uris = []
    if not uris:
        raise InputError(f"{where} names no application: expected subjectAltName=URI:urn:…")
    left = certificate.not_valid_after_utc - datetime.now(UTC)
    if left < _SOON:
        _log.warning("opcua: %s expires in %d days", certificate_file, left.days)
    return certificate, key, uris[0]


def _private_key(where: str, path: Path) -> "RSAPrivateKey":
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    content = _read(where, path)
    try:
        key = load_pem_private_key(content, None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise InputError(f"{where}: {path} holds no private key in PEM without a password") from error
    if not isinstance(key, RSAPrivateKey):
        raise InputError(f"{where}: {path} holds another key than one of RSA")
    if path.stat().st_mode & 0o007:
        raise InputError(
            f"{where}: {path} has mode {path.stat().st_mode & 0o777:04o}; expected 0600 or 0640: it is a "
            "secret"
        )
    return key


def _check_trusted(file: Path, folder: Path) -> None:
    where = f"{file}: opcua.trusted"
    try:
        found = sorted(path for path in folder.iterdir() if path.suffix.lower() in {".pem", ".der"})
    except OSError as error:
        raise refused_by_system(f"{where}: {folder} cannot be read: {error.strerror}", error) from error
    for path in found:
        _certificate(where, path, may_have_expired=True)


def _certificate(where: str, path: Path, *, may_have_expired: bool = False) -> "Certificate":
    from cryptography import x509

    content = _read(where, path)
    load = (
        x509.load_pem_x509_certificate
        if content.lstrip().startswith(b"-----")
        else x509.load_der_x509_certificate
    )
    try:
        certificate = load(content)
    except ValueError as error:
        raise InputError(f"{where}: {path} holds no certificate in PEM or DER") from error
    now = datetime.now(UTC)
    if certificate.not_valid_after_utc < now and not may_have_expired:
        raise InputError(f"{where}: {path} has expired on {certificate.not_valid_after_utc:%Y-%m-%d}")
    if certificate.not_valid_before_utc > now and not may_have_expired:
        raise InputError(f"{where}: {path} is valid from {certificate.not_valid_before_utc:%Y-%m-%d} on")
    return certificate


def _read(where: str, path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise refused_by_system(f"{where}: {path} cannot be read: {error.strerror}", error) from error
    return content[:_MOST_BYTES]


def _der(certificate: "Certificate") -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding

    return certificate.public_bytes(Encoding.DER)


class TrustedClients:
    """Looks whether a client's certificate is trusted, in the folder as it is at the moment."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._told: set[str] = set()

    async def refusal(self, der: bytes) -> Any:
        """Tell with which status code to refuse a client.

        Args:
            der: its certificate.

        Returns:
            A number of ``ua.StatusCodes``; None where it is trusted.
        """
        from asyncua import ua
        from asyncua.crypto.truststore import TrustStore
        from cryptography import x509

        try:
            certificate = x509.load_der_x509_certificate(der)
        except ValueError:
            return ua.StatusCodes.BadCertificateInvalid
        if not is_valid_at(der, datetime.now(UTC)):
            self._tell(certificate, "its certificate has expired or is not valid yet")
            return ua.StatusCodes.BadCertificateTimeInvalid
        assert self._folder is not None
        store = TrustStore([self._folder], [])
        try:
            await store.load_trust()
            trusted = store.is_trusted(certificate)
        except (OSError, ValueError) as error:
            self._tell(certificate, f"{self._folder} cannot be read: {error}")
            trusted = False
        if not trusted:
            self._tell(certificate, f"its certificate is not in {self._folder}")
            return ua.StatusCodes.BadCertificateUntrusted
        return None

    def _tell(self, certificate: "Certificate", why: str) -> None:
        """Write one line for each certificate, so that nobody fills the log."""
        from cryptography.hazmat.primitives.hashes import SHA1

        thumbprint = certificate.fingerprint(SHA1()).hex()
        if thumbprint not in self._told and len(self._told) < 100:
            self._told.add(thumbprint)
            who = printable(certificate.subject.rfc4514_string())[:200]
            _log.warning("opcua: refused the client %s (thumbprint %s): %s", who, thumbprint, why)
