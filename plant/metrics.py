"""What Prometheus scrapes: counters that never fall, histograms in seconds, gauges (docs/plant.md)."""

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, get_args

from plant.gate.process import GateProcess
from plant.link import LinkHealth
from plant.listening import Listening
from plant.totals import Totals
from verdicts.health import CameraState, Health, LineState
from verdicts.verdict import Reason, Verdict

if TYPE_CHECKING:
    from prometheus_client import Metric

_FAST_S: Final = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
_MARGINS_S: Final = (0.0, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
_TIMINGS_S: Final = (0.0002, 0.0005, 0.001, 0.0015, 0.002, 0.003, 0.005, 0.01, 0.02, 0.05)
_LINE_STATES: Final = (*get_args(LineState), "silent")
_CAMERA_STATES: Final = get_args(CameraState)
_DECISIONS: Final = ("pass", "reject", "fault")
_REASONS: Final = get_args(Reason)
_LINK_STATES: Final = ("connecting", "connected", "down")
_MOST_CAMERAS: Final = 64
"""Names come from the line; more than a line has would be labels without end."""


class Metrics:
    """Collects at each scrape what is known then. All labels are bounded, and none holds a pid."""

    def __init__(
        self,
        line: str,
        listening: Listening,
        links: Callable[[], Mapping[str, LinkHealth]],
        folders: Mapping[str, Path],
        gates: GateProcess | None,
    ) -> None:
        """Prepare.

        Args:
            line: its name, the label of everything.
            listening: what is heard of it.
            links: tells how the outputs fare, by name.
            folders: whose disks are watched, by what lies there: journal, archive.
            gates: of the line; None without any.
        """
        from prometheus_client import CollectorRegistry, Histogram, ProcessCollector

        self._line = line
        self._listening = listening
        self._links = links
        self._folders = folders
        self._lock = threading.Lock()
        self._verdicts, self._frames, self._faults = Totals(), Totals(), Totals()
        self._reasons, self._dropped = Totals(), Totals()
        self._thresholds: dict[str, float] = {}
        self.registry = CollectorRegistry(auto_describe=True)
        ProcessCollector(registry=self.registry)

        def histogram(name: str, text: str) -> Histogram:
            return Histogram(name, text, ("line", "camera"), registry=self.registry, buckets=_FAST_S)

        self._wait = histogram("inspectd_wait_seconds", "From the capture until a lane took the frame.")
        self._infer = histogram("inspectd_inference_seconds", "From there until its score was known.")
        self._total = histogram("inspectd_verdict_seconds", "From the capture until the verdict was given.")
        self.registry.register(_Collector(self._collect))
        listening.tell(self._came)
        self._gates = gates
        if gates is not None:
            self._measure(gates)

    def text(self) -> tuple[str, bytes]:
        """Give the content type and what is scraped."""
        from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

        return CONTENT_TYPE_LATEST, generate_latest(self.registry)

    def tick(self) -> None:
        """Take what health and statistics say now; called at least once a second, lest a start is missed."""
        health, statistics = self._listening.health, self._listening.statistics
        with self._lock:
            if health is not None:
                cameras = dict(list(health.cameras.items())[:_MOST_CAMERAS])
                self._verdicts.take(health.boot, {str(name): n for name, n in health.verdicts.items()})
                self._frames.take(health.boot, {name: camera.captured for name, camera in cameras.items()})
                self._faults.take(health.boot, {name: camera.faults for name, camera in cameras.items()})
                self._dropped.take(health.boot, {"": health.dropped_messages})
            if statistics is not None:
                known = {name: n for name, n in statistics.reasons.items() if name in _REASONS}
                self._reasons.take(statistics.boot, {str(name): n for name, n in known.items()})

    def _came(self, verdict: Verdict) -> None:
        if verdict.camera not in self._thresholds and len(self._thresholds) >= _MOST_CAMERAS:
            return
        self._thresholds[verdict.camera] = verdict.threshold
        latency = verdict.latency_ms
        for histogram, took_ms in (
            (self._wait, latency.wait),
            (self._infer, latency.infer),
            (self._total, latency.total),
        ):
            if took_ms is not None:
                histogram.labels(self._line, verdict.camera).observe(max(0.0, took_ms) / 1000)

    def _measure(self, gates: GateProcess) -> None:
        from prometheus_client import Histogram

        margin = Histogram(
            "inspectd_gate_margin_seconds",
            "How long before its place reached the gate a part's verdict was known; below 0: too late.",
            ("line", "gate"),
            registry=self.registry,
            buckets=_MARGINS_S,
        )
        timing = Histogram(
            "inspectd_gate_timing_seconds",
            "How long after the right moment the output was switched.",
            ("line", "gate"),
            registry=self.registry,
            buckets=_TIMINGS_S,
        )
        gates.on_margin = lambda gate, seconds: margin.labels(self._line, gate).observe(seconds)
        gates.on_timing = lambda gate, seconds: timing.labels(self._line, gate).observe(seconds)

    def _collect(self) -> "Iterator[Metric]":
        self.tick()
        with self._lock:
            yield from self._of_counts()
        now = self._listening.now()
        yield self._states("inspectd_line_state", "The line's state", _LINE_STATES, [({}, now.state)])
        yield self._gauge("inspectd_line_up", "Whether the line gives signs of life.", [({}, not now.silent)])
        if now.health is not None:
            yield from self._of_health(now.health)
        yield from self._of_links()
        yield from self._of_gates()
        yield from self._of_disks()
        yield self._gauge(
            "inspectd_threshold",
            "Score above which a part is rejected, by the camera's newest verdict.",
            [({"camera": camera}, value) for camera, value in list(self._thresholds.items())],
        )
        statistics = self._listening.statistics
        if statistics is not None:
            yield self._gauge(
                "inspectd_verdicts_per_second",
                "Verdicts per second in the last minute.",
                [({}, statistics.per_second)],
            )
        yield self._gauge(
            "inspectd_plant_info", "Version of inspectd-plant.", [({"version": version("inspectd")}, 1)]
        )

    def _of_counts(self) -> "Iterator[Metric]":
        verdicts = dict.fromkeys(_DECISIONS, 0) | self._verdicts.content()
        reasons = dict.fromkeys(_REASONS, 0) | self._reasons.content()
        yield self._counter(
            "inspectd_verdicts",
            "Verdicts by decision.",
            [({"decision": name}, n) for name, n in verdicts.items()],
        )
        yield self._counter(
            "inspectd_faults",
            "Fault verdicts by reason.",
            [({"reason": name}, n) for name, n in reasons.items()],
        )
        yield self._counter(
            "inspectd_frames",
            "Frames that a camera captured.",
            [({"camera": name}, n) for name, n in self._frames.content().items()],
        )
        yield self._counter(
            "inspectd_camera_faults",
            "Fault verdicts on a camera's frames.",
            [({"camera": name}, n) for name, n in self._faults.content().items()],
        )
        yield self._counter(
            "inspectd_restarts",
            "Starts of the daemon after the first that was seen.",
            [({}, max(0, self._verdicts.boots - 1))],
        )
        yield self._counter(
            "inspectd_dropped_messages",
            "Requests to the line that were malformed, too long or unauthorised.",
            [({}, sum(self._dropped.content().values()))],
        )
        yield self._counter(
            "inspectd_unheard_verdicts",
            "Verdicts that this process neither heard nor found in the journal.",
            [({}, self._listening.lost)],
        )

    def _of_health(self, health: Health) -> "Iterator[Metric]":
        yield self._gauge(
            "inspectd_queue_frames", "Captured frames without a verdict.", [({}, health.waiting)]
        )
        yield self._gauge("inspectd_uptime_seconds", "Since the daemon's start.", [({}, health.uptime_s)])
        cameras = list(health.cameras.items())[:_MOST_CAMERAS]
        yield self._states(
            "inspectd_camera_state",
            "A camera's state",
            _CAMERA_STATES,
            [({"camera": name}, camera.state) for name, camera in cameras],
        )
        yield self._gauge(
            "inspectd_product_info",
            "What is judged, and by which model.",
            [({"product": health.product or "", "engine": health.engine}, 1)],
        )
        if health.journal is not None:
            yield self._gauge(
                "inspectd_journal_up",
                "Whether verdicts can be journaled.",
                [({}, health.journal.state == "ok")],
            )
            yield self._gauge("inspectd_journal_rows", "Rows in the journal.", [({}, health.journal.entries)])
        yield self._gauge(
            "inspectd_journal_lag_verdicts",
            "Verdicts in the journal that a subscriber has not acknowledged.",
            [({"subscriber": name}, entry.unacknowledged) for name, entry in health.subscribers.items()],
        )
        yield self._gauge(
            "inspectd_subscriber_up",
            "Whether a subscriber that acknowledges is there.",
            [({"subscriber": name}, entry.present) for name, entry in health.subscribers.items()],
        )

    def _of_links(self) -> "Iterator[Metric]":
        links = self._links()
        if not links:
            return
        yield self._states(
            "inspectd_output_state",
            "An output's state",
            _LINK_STATES,
            [({"output": name}, health.state) for name, health in links.items()],
        )
        for key, text in (
            ("delivered", "Verdicts whose arrival was confirmed."),
            ("repeated", "Of these, verdicts that may have been there before."),
            ("failures", "How often the other end was lost or not reached."),
            ("lost", "Verdicts that the journal no longer had when their turn came."),
        ):
            name = f"inspectd_output_{key}" + ("" if key == "failures" else "_verdicts")
            yield self._counter(
                name, text, [({"output": output}, getattr(health, key)) for output, health in links.items()]
            )

    def _of_gates(self) -> "Iterator[Metric]":
        gates = {} if self._gates is None else self._gates.gates
        if not gates:
            return
        yield self._gauge(
            "inspectd_gate_trusted",
            "Whether a gate lets parts pass; 0: it throws everything out.",
            [({"gate": name}, gate.trouble is None) for name, gate in gates.items()],
        )
        yield self._gauge(
            "inspectd_gate_parts_on_their_way",
            "Judged parts that have not reached the gate.",
            [({"gate": name}, gate.on_their_way) for name, gate in gates.items()],
        )
        yield self._counter(
            "inspectd_gate_parts",
            "Parts that reached the gate, by what it did.",
            [
                ({"gate": name, "command": command}, getattr(gate.counts, command))
                for name, gate in gates.items()
                for command in ("passed", "ejected")
            ],
        )
        for key, text in (
            ("late", "Verdicts that came after their part had reached the gate."),
            ("unknown", "Verdicts of parts whose place on the belt is not known; they are thrown out."),
            ("slipped", "Of the late ones, parts that a gate with fires: eject let pass."),
        ):
            yield self._counter(
                f"inspectd_gate_{key}_verdicts",
                text,
                [({"gate": name}, getattr(gate.counts, key)) for name, gate in gates.items()],
            )

    def _of_disks(self) -> "Iterator[Metric]":
        free = []
        for name, folder in self._folders.items():
            try:
                found = os.statvfs(folder)
            except OSError:
                continue
            free.append(({"folder": name}, found.f_bavail * found.f_frsize))
        yield self._gauge("inspectd_disk_free_bytes", "Left for the journal and for pictures.", free)

    def _gauge(self, name: str, text: str, values: Iterable[tuple[Mapping[str, str], float]]) -> "Metric":
        from prometheus_client.core import GaugeMetricFamily

        family = GaugeMetricFamily(name, text)
        for labels, value in values:
            family.add_sample(name, {"line": self._line, **labels}, float(value))
        return family

    def _counter(self, name: str, text: str, values: Iterable[tuple[Mapping[str, str], float]]) -> "Metric":
        from prometheus_client.core import CounterMetricFamily

        family = CounterMetricFamily(name, text)
        for labels, value in values:
            family.add_sample(f"{name}_total", {"line": self._line, **labels}, float(value))
        return family

    def _states(
        self, name: str, text: str, states: Iterable[str], now: Iterable[tuple[Mapping[str, str], str]]
    ) -> "Metric":
        return self._gauge(
            name,
            f"{text}: 1 for the one it is in.",
            [({**labels, "state": state}, state == it) for labels, it in now for state in states],
        )


class _Collector:
    """What the library asks at each scrape."""

    def __init__(self, collect: Callable[[], Any]) -> None:
        self.collect = collect

    def describe(self) -> list[Any]:
        return []  # names are known only with their values
