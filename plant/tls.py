"""TLS from here: what is trusted."""

import ssl
from pathlib import Path

from foundation.errors import InputError, refused_by_system


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
