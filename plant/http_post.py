"""Posts JSON to a web address, signed so that who gets it can tell who sent it and when."""

import hashlib
import hmac
import http.client
import json
import re
import ssl
import time
from pathlib import Path
from typing import Annotated, Final
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

from foundation.secret_file import read_secret
from foundation.secrets import masked
from foundation.tls import reason
from lines.section import File, Section
from plant.deadline import hanging_up_after
from plant.outputs import PeerFailed
from plant.section import Duration, seconds, whole_port
from plant.tls import trusting

_URL: Final = re.compile(
    r"https?://(?:\[[0-9a-fA-F:.]+\]|[A-Za-z0-9_.-]+)(?::([0-9]+))?(?:/[!-~]*)?", re.ASCII
)
_MOST_BYTES: Final = 64 * 1024


def _url(text: str) -> str:
    match = _URL.fullmatch(text)
    if match is None or len(text) > 2000:
        raise ValueError("expected http://HOST/… or https://HOST/…; a secret goes into the key secret")
    if match[1] is not None:
        whole_port(match[1])
    return text


class WebAddress(Section):
    """Where to post."""

    url: Annotated[str, AfterValidator(_url)]
    secret: Annotated[str, Field(min_length=1)] | None = Field(
        default=None, description="file with the key of the signature, or credential:NAME of the service"
    )
    ca: File | None = Field(default=None, description="certificates that may have signed the server's, PEM")
    timeout: Duration = "10 s"


class Poster:
    """Posts to one address; redirections and the environment's proxies are not followed."""

    def __init__(self, file: Path, key: str, config: WebAddress) -> None:
        """Read secret and certificates.

        Raises:
            InputError: one of them is of no use.
        """
        self.url = masked(config.url)
        self._address = urlsplit(config.url)
        self._timeout_s = seconds(config.timeout)
        self._secret = None if config.secret is None else read_secret(file, f"{key}.secret", config.secret)
        self._tls = trusting(file, f"{key}.ca", config.ca)

    def post(self, content: object) -> None:
        """Post, and wait until it was taken.

        Raises:
            PeerFailed: it was not: nobody there, no answer, or another one than 2xx.
        """
        body = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
        headers = {"Content-Type": "application/json", "User-Agent": "inspectd-plant"}
        if self._secret is not None:
            stamp = str(int(time.time()))
            signed = hmac.new(self._secret.encode(), f"{stamp}.".encode() + body, hashlib.sha256).hexdigest()
            headers |= {"X-Inspectd-Timestamp": stamp, "X-Inspectd-Signature": f"sha256={signed}"}
        connection = self._connection()
        target = self._address._replace(scheme="", netloc="").geturl() or "/"
        try:
            with hanging_up_after(self._timeout_s, lambda: connection.sock):
                connection.request("POST", target, body, headers)
                answer = connection.getresponse()
                answer.read(_MOST_BYTES)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise PeerFailed(f"{self.url}: {_why(error, self._timeout_s)}") from error
        finally:
            connection.close()
        if not 200 <= answer.status < 300:
            raise PeerFailed(f"{self.url}: answers {answer.status} {answer.reason}".rstrip())

    def _connection(self) -> http.client.HTTPConnection:
        host, port = self._address.hostname or "", self._address.port
        if self._address.scheme == "https":
            return http.client.HTTPSConnection(host, port, timeout=self._timeout_s, context=self._tls)
        return http.client.HTTPConnection(host, port, timeout=self._timeout_s)


def _why(error: Exception, timeout_s: float) -> str:
    if isinstance(error, TimeoutError):
        return f"does not answer for {timeout_s:g} s"
    if isinstance(error, ssl.SSLError):
        return reason(error)
    if isinstance(error, http.client.RemoteDisconnected):
        return "has ended the connection"
    if isinstance(error, http.client.HTTPException):
        return f"does not speak HTTP ({type(error).__name__})"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__
