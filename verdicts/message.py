"""The two parts of a ZeroMQ message: topic and payload."""

from verdicts.checks import MAX_BYTES, MalformedMessage, shown
from verdicts.health import Health, check_health, decode_health, health_json
from verdicts.verdict import Verdict, check_verdict, decode_verdict, verdict_json


def encode(message: Verdict | Health) -> tuple[bytes, bytes]:
    """Make the two parts of a ZeroMQ message: the topic, and compact JSON in UTF-8.

    Raises:
        MalformedMessage: a value has the wrong type or range, or the payload would exceed ``MAX_BYTES``;
            what ``decode`` would refuse is never sent.
    """
    if isinstance(message, Verdict):
        check_verdict(message)
        payload = verdict_json(message).encode()
    else:
        check_health(message)
        payload = health_json(message).encode()
    if len(payload) > MAX_BYTES:
        raise MalformedMessage(f"payload: found {len(payload)} bytes, expected at most {MAX_BYTES}")
    return _topic(message), payload


def decode(topic: bytes, payload: bytes) -> Verdict | Health:
    """Read the two parts of a ZeroMQ message, believing nothing.

    Raises:
        MalformedMessage: for anything but a whole message of schema 1 under its own topic.
    """
    message = decode_health(payload) if topic.endswith(b"/-/health") else decode_verdict(payload)
    if topic != _topic(message):
        raise MalformedMessage(f"topic: found {shown(topic)}, expected {shown(_topic(message))}")
    return message


def _topic(message: Verdict | Health) -> bytes:
    if isinstance(message, Verdict):
        return f"{message.line}/{message.camera}/{message.decision}".encode()
    return f"{message.line}/-/health".encode()
