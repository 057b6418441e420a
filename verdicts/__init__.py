from verdicts.gaps import Lost
from verdicts.message import (
    CameraHealth,
    Decision,
    Health,
    JournalHealth,
    Latency,
    MalformedMessage,
    Peak,
    Reason,
    SubscriberHealth,
    Verdict,
    decode,
    encode,
)
from verdicts.subscription import LineSilent, Subscription, VerdictsLost, read_health, subscribe

__all__ = [
    "CameraHealth",
    "Decision",
    "Health",
    "JournalHealth",
    "Latency",
    "LineSilent",
    "Lost",
    "MalformedMessage",
    "Peak",
    "Reason",
    "SubscriberHealth",
    "Subscription",
    "Verdict",
    "VerdictsLost",
    "decode",
    "encode",
    "read_health",
    "subscribe",
]
