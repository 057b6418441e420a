"""What failures of TLS are called in one line."""

import ssl
from typing import Final

_NO_TLS: Final = {"WRONG_VERSION_NUMBER", "UNKNOWN_PROTOCOL", "HTTP_REQUEST", "PACKET_LENGTH_TOO_LONG"}


def reason(error: ssl.SSLError) -> str:
    """Put a failure into plain words."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not to be trusted: {error.verify_message}"
    if isinstance(error, (ssl.SSLEOFError, ssl.SSLZeroReturnError)):
        return "hung up in the middle of TLS"
    found = error.reason or "it broke off"
    return "does not speak TLS" if found in _NO_TLS else f"TLS failed: {found.lower().replace('_', ' ')}"
