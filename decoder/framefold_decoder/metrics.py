"""What the decoder counts, for Prometheus: `GET /metrics`. No label names a stream or a key: their number stays bounded."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Iterable, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from framefold_decoder.library import Library
from framefold_decoder.store.provenance import Quality
from framefold_protocol.errors import StoreError
from framefold_protocol.messages import Data, Gap, Snapshot

CHI2_BUCKETS = (0.5, 0.8, 0.9, 0.95, 1.0, 1.05, 1.1, 1.2, 1.5, 2.0, 3.0, 5.0, 10.0)
"""Around 1, where the frames explain the data."""
PSNR_BUCKETS = (15.0, 20.0, 22.5, 25.0, 27.5, 30.0, 32.5, 35.0, 40.0)
"""dB."""
SSIM_BUCKETS = (0.3, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.98)
DECODE_BUCKETS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
"""Seconds."""


class Metrics:
    """One decoder's counters; each is safe to change from any thread."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self.connections = Gauge("framefold_connections", "TCP connections to the link.", registry=registry)
        self.open_streams = Gauge("framefold_open_streams", "Streams an encoder is sending.", registry=registry)
        self.waiting_streams = Gauge("framefold_waiting_streams", "Streams the disk does not take now.", registry=registry)
        self.snapshots = Counter("framefold_snapshots_received", "Snapshots stored.", registry=registry)
        self.frames = Counter("framefold_frames_received", "Frames stored, folded or raw.", registry=registry)
        self.lost_frames = Counter("framefold_frames_lost", "Frames in recorded gaps.", registry=registry)
        self.wire_bytes = Counter("framefold_wire_bytes", "Bytes received for what was stored, headers in.", registry=registry)
        self.duplicates = Counter("framefold_duplicates", "Messages that had arrived before.", registry=registry)
        self.refused = Counter("framefold_refused_sessions", "Sessions ended with an error.", ["code"], registry=registry)
        self.refused_keys = Counter("framefold_refused_keys", "Connections with a key that is not allowed.", registry=registry)
        self.failed_handshakes = Counter("framefold_failed_handshakes", "Connections that never came in.", registry=registry)
        self.decode_seconds = Histogram(
            "framefold_decode_seconds", "Time to reconstruct and store a snapshot.", buckets=DECODE_BUCKETS, registry=registry
        )
        self.chi2 = Histogram("framefold_chi2", "chi2 of reconstructed snapshots.", buckets=CHI2_BUCKETS, registry=registry)

        self.audit_psnr = Histogram(
            "framefold_audit_psnr_db", "PSNR of audited snapshots.", buckets=PSNR_BUCKETS, registry=registry
        )
        self.audit_ssim = Histogram(
            "framefold_audit_ssim", "SSIM of audited snapshots.", buckets=SSIM_BUCKETS, registry=registry
        )

    def stored(self, batch: Sequence[Data], wire_bytes: int) -> None:
        """Count messages that were stored, which came in so many bytes."""
        lost = sum(data.frames for data in batch if isinstance(data, Gap))
        self.snapshots.inc(sum(isinstance(data, Snapshot) for data in batch))
        self.frames.inc(sum(data.frames for data in batch) - lost)
        self.lost_frames.inc(lost)
        self.wire_bytes.inc(wire_bytes)

    def decoded(self, quality: Quality, seconds: float) -> None:
        """Count a reconstructed snapshot."""
        self.decode_seconds.observe(seconds)
        if quality.chi2 is not None and math.isfinite(quality.chi2):
            self.chi2.observe(quality.chi2)
        if quality.psnr is not None and quality.ssim is not None:
            self.audit_psnr.observe(quality.psnr)
            self.audit_ssim.observe(quality.ssim)

    def watch(self, library: Library, problems: Callable[[], Iterable[str]]) -> None:
        """Tell of the library, and of problems beside its own, as they are at each `exposition`."""
        self._registry.register(_LibraryCollector(library, problems))

    def exposition(self) -> bytes:
        """All of it in Prometheus' text format."""
        return generate_latest(self._registry)


class _LibraryCollector(Collector):
    def __init__(self, library: Library, problems: Callable[[], Iterable[str]]) -> None:
        self._library = library
        self._problems = problems

    def describe(self) -> Iterable[GaugeMetricFamily]:
        """Nothing: registering asks for names, and must not read the disk."""
        return []

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """The library now; what cannot be told is left out."""
        troubled = bool([*self._library.problems(), *self._problems()])
        yield GaugeMetricFamily("framefold_problem", "1 when /readyz names a problem, else 0.", troubled)
        try:
            free = shutil.disk_usage(self._library.folder).free
            yield GaugeMetricFamily("framefold_disk_free_bytes", "Free on the data folder's disk.", free)
            waiting = sum(stream.snapshots - stream.decoded for stream in self._library.catalogue.streams())
            yield GaugeMetricFamily("framefold_pending_decodes", "Stored snapshots that are not reconstructed.", waiting)
        except (OSError, StoreError):
            return
