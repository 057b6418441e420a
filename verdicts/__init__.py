from verdicts.acknowledged import (
    AcknowledgedSubscription,
    SubscriberRefused,
    SubscriberReplaced,
    acknowledged,
)
from verdicts.checks import MalformedMessage
from verdicts.control import ControlRefused, ControlSilent, LineControl
from verdicts.curve import CurveKeys
from verdicts.gaps import Lost
from verdicts.health import CameraHealth, DriftHealth, GoldenHealth, Health, JournalHealth, SubscriberHealth
from verdicts.message import decode, encode
from verdicts.silence import LineSilent
from verdicts.statistics import CameraStatistics, LastFault, LatencySummary, Statistics
from verdicts.stream import VerdictsLost
from verdicts.subscription import Subscription, read_health, subscribe
from verdicts.verdict import Decision, Latency, Peak, Reason, Verdict

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
