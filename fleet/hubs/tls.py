"""What a client shows and believes when it connects with TLS."""

import ssl
from pathlib import Path

from foundation.errors import InputError, refused_by_system


def tls_context(ca: Path | None, certificate: Path | None, key: Path | None) -> ssl.SSLContext:
    """Make it; without ``ca`` the system's authorities are believed.

    Raises:
        InputError: a file cannot be read, or is of no use.
    """
    for file in (ca, certificate, key):
        try:
            if file is not None:
                file.read_bytes()
        except OSError as error:
            raise refused_by_system(f"{file}: cannot be read: {error.strerror}", error) from error
    try:
        context = ssl.create_default_context(cafile=None if ca is None else str(ca))
    except ssl.SSLError as error:
        raise InputError(f"{ca}: holds no certificate in PEM") from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if certificate is not None:
        try:
            context.load_cert_chain(certificate, key, password=_no_password)
        except (ssl.SSLError, ValueError) as error:
            raise InputError(f"{certificate}: holds no certificate with its key in PEM") from error
    return context


def _no_password() -> str:
    """Refuse a key with a password, instead of asking for it on the terminal."""
    raise ValueError("has a password")
