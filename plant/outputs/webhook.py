"""Verdicts to a web address, signed, again and again until they are taken (docs/plant.md has the body)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field

from plant.http_post import Poster, WebAddress
from plant.outputs import Delivery, LineNow
from plant.section import OutputSection
from verdicts.verdict import Decision


class WebhookConfig(OutputSection, WebAddress):
    """Where verdicts are posted."""

    decisions: Annotated[tuple[Decision, ...], Field(min_length=1)] = Field(
        default=("reject", "fault"), description="which verdicts go there"
    )


class Webhook:
    """Posts verdicts, many at once where many wait."""

    most_at_once = 100

    def __init__(self, file: Path, config: WebhookConfig) -> None:
        self._poster = Poster(file, "webhook", config)

    def connect(self) -> bool:
        """There is nothing to keep up: whether anybody is there shows with the first verdict."""
        return False

    def deliver(self, deliveries: Sequence[Delivery]) -> None:
        """Post them in one request, and wait until they are taken."""
        self._poster.post({"verdicts": [delivery.content() for delivery in deliveries]})

    def tell(self, line: LineNow) -> None:
        """Alarms tell how the line fares."""

    def close(self) -> None:
        """Nothing is open."""
