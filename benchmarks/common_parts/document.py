"""A benchmark's JSON document: the command that made it, the machine it was measured on, and the last line of its output."""

from __future__ import annotations

import json
import os
import platform
import sys
from pathlib import Path
from typing import Any


def command() -> str:
    """The one that runs, as anyone types it in a checkout."""
    return " ".join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]])


def cores() -> int:
    """Cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def machine() -> dict[str, Any]:
    """What the figures were measured on, and how busy others kept it in the minute before: speeds want a load near 0."""
    info = Path("/proc/cpuinfo")
    names = [line for line in info.read_text().splitlines() if line.startswith("model name")] if info.exists() else []
    cpu = names[0].split(":", 1)[1].strip() if names else platform.machine()
    load = round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None
    return {"cpu": cpu, "cores": cores(), "load": load, "system": platform.system(), "python": platform.python_version()}


def write(document: dict[str, Any], path: Path | None) -> None:
    """Into a file, if there is to be one."""
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(document, indent=1) + "\n")


def publish(document: dict[str, Any], path: Path | None) -> None:
    """Into a file, if there is to be one, and as one line of output: the last."""
    write(document, path)
    print(json.dumps(document))
