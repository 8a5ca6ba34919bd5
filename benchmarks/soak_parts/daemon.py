"""A real framefold process that can be killed and started again with the same arguments; its log is followed line by line."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

STOP_S = 60
"""How long a process may take to end when it is asked to."""


class SoakFailure(Exception):
    """The soak has found something that must not happen; the message says what."""


class Daemon:
    """One program of framefold, started any number of times with the same arguments. A context manager: leaving it kills."""

    def __init__(
        self,
        program: str,
        arguments: Sequence[object],
        log: Path,
        environment: Mapping[str, str] | None = None,
        listen: Callable[[float, str], None] = lambda unix_s, line: None,
    ) -> None:
        """`environment` is added to this process's own, without its FRAMEFOLD_ keys. `listen` is told every line of its log."""
        self.command = [str(Path(sys.executable).with_name(program)), *map(str, arguments)]
        self.name = program.removeprefix("framefold-")
        self.started = 0.0
        """When it was started last, on the monotonic clock."""
        self._log = log
        self._listen = listen
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("FRAMEFOLD_")}
        self._environment = inherited | {"PYTHONFAULTHANDLER": "1"} | dict(environment or {})
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None
        self._lines: list[str] = []
        self._heard = threading.Condition()

    def __enter__(self) -> Daemon:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.kill()

    @property
    def status(self) -> int | None:
        """Its exit status; None while it runs."""
        assert self._process is not None, "never started"
        return self._process.poll()

    @property
    def lines(self) -> list[str]:
        """What it has logged since it was started last."""
        with self._heard:
            return list(self._lines)

    @property
    def summary(self) -> dict[str, Any]:
        """The JSON document that an encoder prints as its last line."""
        summary: dict[str, Any] = json.loads(self._log.with_suffix(".out").read_text().splitlines()[-1])
        return summary

    def start(self) -> None:
        """Run it."""
        with self._heard:
            self._lines = []
        self.started = time.monotonic()
        with self._log.with_suffix(".out").open("w") as out:
            self._process = subprocess.Popen(self.command, stdout=out, stderr=subprocess.PIPE, text=True, env=self._environment)
        self._reader = threading.Thread(target=self._follow, args=(self._process,), daemon=True)
        self._reader.start()

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        if self._process is not None:
            self._process.kill()
            self._end()

    def stop(self) -> None:
        """End a decoder as a person would, once it serves. Raises `SoakFailure` unless it ends well."""
        assert self._process is not None
        self.wait_for("REST at", STOP_S)  # before, it is starting, and any signal is the end of it
        self._process.send_signal(signal.SIGINT)
        self.wait(STOP_S)
        if self.status != 0:
            raise SoakFailure(f"{self.name} was asked to stop and ended with {self.status}: {self.last_words}")

    def wait(self, timeout_s: float) -> int:
        """Its exit status, once it has ended. Raises `SoakFailure` after the timeout."""
        assert self._process is not None
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            last_words = self.last_words
            self._process.send_signal(signal.SIGABRT)  # its log then tells where each of its threads was
            self._end()
            raise SoakFailure(f"{self.name} did not end within {timeout_s:.0f} s: {last_words}") from None
        return self._end()

    def wait_for(self, pattern: str, timeout_s: float) -> re.Match[str] | None:
        """The first line since the start that the pattern is found in; None when it ended, or said nothing of it in time."""
        deadline = time.monotonic() + timeout_s
        seen = 0
        with self._heard:
            while True:
                for line in self._lines[seen:]:
                    if found := re.search(pattern, line):
                        return found
                seen = len(self._lines)
                left = deadline - time.monotonic()
                if left <= 0 or self.status is not None:
                    return None
                self._heard.wait(min(left, 0.1))

    @property
    def last_words(self) -> str:
        """The end of its log."""
        return " | ".join(self.lines[-8:]) or "(it logged nothing)"

    @property
    def resident_mb(self) -> float:
        """Its resident memory in MB; 0 when it has ended."""
        return self._status_mb("VmRSS")

    @property
    def anonymous_mb(self) -> float:
        """What of its resident memory is no file's, in MB; 0 when it has ended."""
        return self._status_mb("RssAnon")

    @property
    def peak_mb(self) -> float:
        """The most resident memory it ever had, in MB; 0 when it has ended."""
        return self._status_mb("VmHWM")

    @property
    def cpu_s(self) -> float:
        """CPU time it has used since it was started last, all threads, in seconds; only while it runs."""
        fields = self._proc("stat").rpartition(")")[2].split()  # the name before may hold anything
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def _status_mb(self, key: str) -> float:
        found = re.search(rf"^{key}:\s+(\d+) kB", self._proc("status"), re.MULTILINE)
        return round(int(found[1]) * 1024 / 1e6, 1) if found else 0.0

    def _proc(self, name: str) -> str:
        assert self._process is not None
        try:
            return Path(f"/proc/{self._process.pid}/{name}").read_text()
        except OSError:  # it has just ended
            return ""

    def _end(self) -> int:
        assert self._process is not None
        assert self._reader is not None
        self._process.wait()
        self._reader.join()
        return self._process.returncode

    def _follow(self, process: subprocess.Popen[str]) -> None:
        assert process.stderr is not None
        with self._log.open("a") as log, process.stderr:
            log.write(f"--- {time.time():.3f} process {process.pid}\n")
            for line in process.stderr:
                now = time.time()
                log.write(f"{now:.3f} {line}")
                log.flush()
                with self._heard:
                    self._lines.append(line.rstrip())
                    self._heard.notify_all()
                self._listen(now, line)
