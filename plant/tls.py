"""TLS from here: what is trusted, and what its failures are called in one line."""

import ssl
from pathlib import Path
from typing import Final

from foundation.errors import InputError, refused_by_system

_NO_TLS: Final = {"WRONG_VERSION_NUMBER", "UNKNOWN_PROTOCOL", "HTTP_REQUEST", "PACKET_LENGTH_TOO_LONG"}


def trusting(file: Path, key: str, ca: Path | None) -> ssl.SSLContext:
    """Make a context that checks certificates and names.

    Args:
        file: the config, for what is said about it.
        key: of ``ca`` in it.
        ca: certificates in PEM that may have signed the other end's; None for the system's.

    Raises:
        InputError: the file cannot be read, or holds no certificate.
    """
    try:
        return ssl.create_default_context(cafile=ca)
    except ssl.SSLError as error:
        raise InputError(f"{file}: {key}: {ca} holds no certificate in PEM") from error
    except OSError as error:
        raise refused_by_system(f"{file}: {key}: {ca} cannot be read: {error.strerror}", error) from error


def reason(error: ssl.SSLError) -> str:
    """Put a failure into plain words."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not to be trusted: {error.verify_message}"
    if isinstance(error, (ssl.SSLEOFError, ssl.SSLZeroReturnError)):
        return "hung up in the middle of TLS"
    found = error.reason or "it broke off"
    return "does not speak TLS" if found in _NO_TLS else f"TLS failed: {found.lower().replace('_', ' ')}"
