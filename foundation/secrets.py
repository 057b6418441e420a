"""Passwords that stand in addresses, kept out of what people and programs read."""

import re

_USER = re.compile(r"(?<=://)(?:([^\s/?#@:]*):\S*|[^\s/?#@]+)(?=@)")
# As cameras name them: ?pwd=…, &token=…, /user=admin&password=…, user=admin_password=….
_PARAMETER = re.compile(
    r"((?<![a-z0-9])[a-z0-9.-]*(?:pas|pwd|psw|token|secret|auth|signature|credential|key|session|sid)[a-z0-9._-]*=)"
    r"[^&;\s'\"#]+",
    re.IGNORECASE,
)
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://\S+", re.IGNORECASE)


def masked(text: str) -> str:
    """Put ``***`` in place of passwords, tokens and keys in the addresses that a text quotes."""
    return _ADDRESS.sub(_without_secrets, text) if "://" in text else text


def _without_secrets(address: re.Match[str]) -> str:
    named = _USER.sub(lambda user: f"{user[1]}:***" if user[1] is not None else "***", address[0])
    return _PARAMETER.sub(r"\1***", named)
