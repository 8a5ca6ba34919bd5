"""Streams one after the other while everything goes wrong that the scheduler draws."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from framefold_client import Client, ClientError
from soak_parts.daemon import SoakFailure
from soak_parts.faulty_link import FaultyLink
from soak_parts.machines import Machine
from soak_parts.ports import free_port
from soak_parts.progress import StreamProgress
from soak_parts.scenes import Reference, Scene
from soak_parts.scheduler import Fault, Scheduler

FINISH_S = 240
"""How long a stream that is left in peace may take to end. Longer is taken as never."""
SILENCE_S = 1.0
"""The encoder's patience: shorter than its default, so that many silences fit into a soak."""
_TICK_S = 0.05


@dataclass(frozen=True)
class Outcome:
    """A stream that its encoder took for stored."""

    scene: Scene
    summary: dict[str, Any]
    """The encoder's last word."""


@dataclass
class Tally:
    """What went wrong so far, and what came of it."""

    kills: Counter[str] = field(default_factory=Counter)
    """By side and by what it was at, such as `encoder start-up`."""
    cuts: Counter[str] = field(default_factory=Counter)
    disk_fulls: Counter[str] = field(default_factory=Counter)
    clock_jumps: Counter[str] = field(default_factory=Counter)
    ended_for_want_of_room: Counter[str] = field(default_factory=Counter)
    """Processes that ended by themselves because their disk was full, and were started again."""
    outcomes: list[Outcome] = field(default_factory=list)
    ended_badly: str = ""
    """What was wrong with how the decoder ended when it was asked to, after all."""

    @property
    def stream_ids(self) -> frozenset[str]:
        """Of the streams that are through."""
        return frozenset(outcome.summary["stream_id"] for outcome in self.outcomes)


class Chaos:
    """Encoder and decoder under a scheduler of faults. A context manager: leaving it kills what runs."""

    def __init__(
        self,
        folder: Path,
        scheduler: Scheduler,
        references: Mapping[Scene, Reference],
        *,
        small_disks: bool,
        decoder_options: Sequence[object],
    ) -> None:
        """`references`: the scenes that will be streamed, and what a run without faults stored of them."""
        self.tally = Tally()
        self.keep = True
        """Whether what is on the small disks shall outlive them."""
        self._scheduler = scheduler
        self._references = references
        self._progress = StreamProgress(0, frozenset())
        self._decoder = Machine("decoder", folder, small_disk=small_disks, listen=lambda line: self._progress.hear(line))
        self._encoder = Machine("encoder", folder, small_disk=small_disks, listen=lambda line: None)
        self._machines = {machine.side: machine for machine in (self._encoder, self._decoder)}
        ingest, http = free_port(), free_port()
        self._link = FaultyLink(ingest)
        self._client = Client(f"http://127.0.0.1:{http}", timeout_s=1.0)
        self.data = self._decoder.folder / "data"
        addresses = ("--ingest", f"tcp://127.0.0.1:{ingest}", "--http", f"127.0.0.1:{http}")
        self._serve = ("serve", "--data", self.data, *addresses, *decoder_options)

    def __enter__(self) -> Chaos:
        self._decoder.run("framefold-decoder", self._serve)
        return self

    def __exit__(self, *exc: object) -> None:
        for machine in self._machines.values():
            machine.close(self.keep)
        self._client.close()

    def stream(self, scene: Scene) -> None:
        """One stream, from its encoder's first start to its last word. Raises `SoakFailure` when it does not get there."""
        self._link.limit(scene.rate)
        self._progress = StreamProgress(self._references[scene].record.position, self.tally.stream_ids)
        journal = self._encoder.folder / f"journal-{len(self.tally.outcomes)}"
        run = ("run", scene.source, *scene.options, "--to", f"tcp://127.0.0.1:{self._link.port}", "--journal", journal)
        self._encoder.run("framefold-encoder", run, {"FRAMEFOLD_ENCODER_SILENCE_S": str(SILENCE_S)})
        for fault in self._scheduler.stream():
            if self._reach(fault):
                self._strike(fault)
        if self._pass(FINISH_S):
            last = self._encoder.daemon.last_words
            raise SoakFailure(f"{scene.name} is not stored after {FINISH_S} s in peace; its encoder says: {last}")
        self.tally.outcomes.append(Outcome(scene, self._encoder.daemon.summary))

    def settle(self, timeout_s: float) -> None:
        """Wait until everything that is stored is reconstructed."""
        deadline = time.monotonic() + timeout_s
        while any(stream["decoded"] < stream["snapshots"] for stream in self._streams()):
            if time.monotonic() > deadline:
                raise SoakFailure(f"snapshots are left without frames after {timeout_s:.0f} s")
            time.sleep(0.5)

    def stop(self) -> None:
        """Stop the decoder as a person would."""
        self._decoder.daemon.stop()

    def _streams(self) -> list[dict[str, Any]]:
        while True:
            with suppress(ClientError):
                return self._client.streams()
            self._ended()
            time.sleep(0.5)

    def _reach(self, fault: Fault) -> bool:
        """Wait for the fault's moment; False when there is nobody left whom it could meet."""
        while fault.moment != "any" and not self._ended():
            self._progress.ask(self._client, often=True)
            if self._progress.closed or (fault.moment == "end" and self._progress.ending):
                break
            time.sleep(_TICK_S)
        return self._pass(fault.delay_s) or (fault.moment == "close" and "decoder" in fault.sides)

    def _pass(self, seconds: float) -> bool:
        """Let time pass; False as soon as the stream has ended."""
        deadline = time.monotonic() + seconds
        while not self._ended():
            left = deadline - time.monotonic()
            if left <= 0:
                return True
            self._progress.ask(self._client)
            time.sleep(min(left, _TICK_S))
        return False

    def _ended(self) -> bool:
        """Whether the encoder has said its last word. A process that ended for want of room is started again, as a service
        manager would do; any other end is a failure."""
        for machine in self._machines.values():
            status = machine.daemon.status
            if status is None or (machine is self._encoder and status == 0):
                continue
            if status != 2 or not machine.lacked_room:
                raise SoakFailure(f"{machine.side} ended by itself with {status}: {machine.daemon.last_words}")
            self.tally.ended_for_want_of_room[machine.side] += 1
            time.sleep(0.2)
            machine.restart()
        return self._encoder.daemon.status == 0

    def _strike(self, fault: Fault) -> None:
        match fault.kind:
            case "kill":
                self._kill(fault.sides, fault.lasts_s)
            case "cut":
                self.tally.cuts[fault.how] += 1
                self._link.cut(fault.how)
                self._endure(fault)
                self._link.mend()
            case "disk-full":
                for side in fault.sides:
                    self.tally.disk_fulls[side] += 1
                    self._machines[side].fill_disk(int(fault.amount))
                self._endure(fault)
                for side in fault.sides:
                    self._machines[side].free_disk()
            case "clock-jump":
                for side in fault.sides:
                    self.tally.clock_jumps[side] += 1
                    self._machines[side].clock.jump_to(fault.amount)
                self._endure(fault)

    def _endure(self, fault: Fault) -> None:
        """Let it last, and kill in the midst of it if it says so."""
        if fault.sides_killed and self._pass(fault.kill_s):
            self._kill(fault.sides_killed, 0.0)
        self._pass(fault.lasts_s - (fault.kill_s if fault.sides_killed else 0.0))

    def _kill(self, sides: tuple[str, ...], away_s: float) -> None:
        """Kill those of them that run, and start them again."""
        killed = [self._machines[side] for side in sides if self._machines[side].daemon.status is None]
        for machine in killed:
            self.tally.kills[f"{machine.side} {self._phase(machine)}"] += 1
            machine.kill()
        time.sleep(away_s)
        for machine in killed:
            machine.restart()

    def _phase(self, machine: Machine) -> str:
        if self._progress.closed:
            return "close"
        phase = machine.phase()
        return "end" if phase == "streaming" and self._progress.ending else phase
