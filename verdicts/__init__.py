from verdicts.acknowledged import (
    AcknowledgedSubscription,
    SubscriberRefused,
    SubscriberReplaced,
    acknowledged,
)
from verdicts.control import ControlRefused, ControlSilent, LineControl
from verdicts.curve import CurveKeys
from verdicts.gaps import Lost
from verdicts.message import (
    CameraHealth,
    Decision,
    DriftHealth,
    GoldenHealth,
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
from verdicts.silence import LineSilent
from verdicts.statistics import CameraStatistics, LastFault, LatencySummary, Statistics
from verdicts.subscription import Subscription, VerdictsLost, read_health, subscribe

__all__ = [
    "AcknowledgedSubscription",
    "CameraHealth",
    "CameraStatistics",
    "ControlRefused",
    "ControlSilent",
    "CurveKeys",
    "Decision",
    "DriftHealth",
    "GoldenHealth",
    "Health",
    "JournalHealth",
    "LastFault",
    "Latency",
    "LatencySummary",
    "LineControl",
    "LineSilent",
    "Lost",
    "MalformedMessage",
    "Peak",
    "Reason",
    "Statistics",
    "SubscriberHealth",
    "SubscriberRefused",
    "SubscriberReplaced",
    "Subscription",
    "Verdict",
    "VerdictsLost",
    "acknowledged",
    "decode",
    "encode",
    "read_health",
    "subscribe",
]
