"""Posts JSON to a web address, signed so that who gets it can tell who sent it and when."""

import hashlib
import hmac
import http.client
import json
import re
import ssl
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import AfterValidator, Field

from foundation.secret_file import read_secret
from foundation.secrets import masked
from lines.section import File, Section
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
        self._url = config.url
        self._timeout_s = seconds(config.timeout)
        self._secret = None if config.secret is None else read_secret(file, f"{key}.secret", config.secret)
        context = trusting(file, f"{key}.ca", config.ca)
        self._opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context), _NoRedirect()
        )

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
        request = urllib.request.Request(self._url, body, headers, method="POST")
        try:
            with self._opener.open(request, timeout=self._timeout_s) as answer:
                answer.read(_MOST_BYTES)
        except urllib.error.HTTPError as error:
            error.close()
            raise PeerFailed(f"{self.url}: answers {error.code} {error.reason}") from error
        except urllib.error.URLError as error:
            raise PeerFailed(f"{self.url}: {_why(error.reason, self._timeout_s)}") from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise PeerFailed(f"{self.url}: {_why(error, self._timeout_s)}") from error


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None


def _why(error: object, timeout_s: float) -> str:
    if isinstance(error, TimeoutError):
        return f"does not answer for {timeout_s:g} s"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not to be trusted: {error.verify_message}"
    if isinstance(error, http.client.HTTPException):
        return f"does not speak HTTP ({type(error).__name__})"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__
