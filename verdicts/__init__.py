from verdicts.gaps import Lost
from verdicts.message import (
    CameraHealth,
    Decision,
    Health,
    Latency,
    MalformedMessage,
    Peak,
    Reason,
    Verdict,
    decode,
    encode,
)
from verdicts.subscription import LineSilent, Subscription, VerdictsLost, read_health, subscribe

__all__ = [
    "CameraHealth",
    "Decision",
    "Health",
    "Latency",
    "LineSilent",
    "Lost",
    "MalformedMessage",
    "Peak",
    "Reason",
    "Subscription",
    "Verdict",
    "VerdictsLost",
    "decode",
    "encode",
    "read_health",
    "subscribe",
]
