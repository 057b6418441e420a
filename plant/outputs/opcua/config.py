"""Where and to whom the OPC UA server answers."""

import ipaddress
import re
from typing import Annotated, Final, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from lines.section import File, Name, Section
from plant.section import OutputSection, whole_port

_LISTEN: Final = re.compile(r"opc\.tcp://(\[[0-9a-fA-F:.]+\]|[0-9.]+)(?::([0-9]+))?/?", re.ASCII)
PORT: Final = 4840

SecurityPolicy = Literal["Basic256Sha256", "Aes256_Sha256_RsaPss", "None"]


def _listen(text: str) -> str:
    match = _LISTEN.fullmatch(text)
    if match is None:
        raise ValueError("expected an address of this machine such as opc.tcp://127.0.0.1:4840")
    whole_port(match[2] or str(PORT))
    try:
        ipaddress.ip_address(match[1].strip("[]"))
    except ValueError:
        raise ValueError("expected an address of this machine such as opc.tcp://127.0.0.1:4840") from None
    return text


class UserConfig(Section):
    """Somebody who may read; he shows a password or a certificate."""

    password: Annotated[str, Field(min_length=1)] | None = Field(
        default=None, description="file with the password, or credential:NAME of the service"
    )
    certificate: File | None = Field(default=None, description="the user's certificate, PEM or DER")
    control: bool = Field(default=False, description="may select products, too")

    @model_validator(mode="after")
    def _shows_something(self) -> Self:
        if (self.password is None) == (self.certificate is None):
            raise ValueError("expected one of password and certificate")
        return self


class OpcuaConfig(OutputSection):
    """A server of OPC UA with the machine vision companion specification, OPC 40100-1."""

    listen: Annotated[str, AfterValidator(_listen)] = "opc.tcp://127.0.0.1:4840"
    security: Annotated[tuple[SecurityPolicy, ...], Field(min_length=1)] | None = Field(
        default=None,
        description="policies that are offered; both that encrypt, and on the loopback None, when absent",
    )
    certificate: File | None = Field(default=None, description="the server's certificate, PEM or DER")
    certificate_key: File | None = Field(default=None, description="its private key, PEM")
    trusted: File | None = Field(
        default=None,
        description="folder with the certificates of clients, or of who signs them: *.pem and *.der",
    )
    users: dict[Name, UserConfig] = Field(default={}, description="who may log in")
    anonymous: bool = Field(default=False, description="whether those without a user may read")
    clients: Annotated[int, Field(ge=1, le=200)] = Field(
        default=20, description="connections at once; one more is hung up on"
    )
    keep: Annotated[int, Field(ge=1, le=100_000)] = Field(
        default=1000, description="so many of the last results can be listed"
    )


def address_of(listen: str) -> tuple[str, int]:
    """Give host and port of a checked address."""
    match = _LISTEN.fullmatch(listen)
    assert match is not None
    return match[1].strip("[]"), int(match[2] or PORT)


def policies_of(config: OpcuaConfig) -> tuple[SecurityPolicy, ...]:
    """Give the security policies that are offered: None unasked on the loopback alone."""
    if config.security is not None:
        return config.security
    encrypting: tuple[SecurityPolicy, ...] = ("Basic256Sha256", "Aes256_Sha256_RsaPss")
    loopback = ipaddress.ip_address(address_of(config.listen)[0]).is_loopback
    if config.certificate is None and loopback:
        return ("None",)
    return (*encrypting, "None") if loopback else encrypting
