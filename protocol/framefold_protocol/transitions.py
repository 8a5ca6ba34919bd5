"""The link's state machine, as one table a role. Whatever is not in the table is an error of whoever did it.

    encoder   idle ─hello▶ greeting ─◀welcome streaming ─end▶ ending ─◀done done
    decoder   waiting ─◀hello greeted ─welcome▶ streaming ─◀end ending ─done▶ done

Kinds that are not message types: `data` is snapshot, raw-frames, audit or gap; `stale` a welcome that answers an older hello;
`retry` an error after which a fresh hello may help; `downgrade` an error `version` after which an older version may. SPEC.md
shows `diagram()` of both tables.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple


class State(StrEnum):
    """Where one side of a stream's session stands."""

    IDLE = "idle"
    GREETING = "greeting"
    WAITING = "waiting"
    GREETED = "greeted"
    STREAMING = "streaming"
    ENDING = "ending"
    DONE = "done"
    FAILED = "failed"


class Step(NamedTuple):
    """One thing a side does: `send` or `receive` a kind of message."""

    verb: str
    kind: str

    def __str__(self) -> str:
        return f"{self.verb} {self.kind}"


Table = dict[State, dict[Step, State]]


def _table(rows: dict[State, dict[str, State]]) -> Table:
    return {state: {Step(*step.split()): to for step, to in row.items()} for state, row in rows.items()}


ENCODER: Table = _table(
    {
        State.IDLE: {
            "send hello": State.GREETING,
            "send error": State.FAILED,
            "receive ack": State.IDLE,  # here and below: of what was sent before
            "receive stale": State.IDLE,
            "receive retry": State.IDLE,
            "receive downgrade": State.IDLE,
            "receive done": State.DONE,
            "receive error": State.FAILED,
        },
        State.GREETING: {
            "send hello": State.GREETING,
            "send error": State.FAILED,
            "receive welcome": State.STREAMING,
            "receive ack": State.GREETING,
            "receive stale": State.GREETING,
            "receive retry": State.GREETING,
            "receive downgrade": State.IDLE,
            "receive done": State.DONE,
            "receive error": State.FAILED,
        },
        State.STREAMING: {
            "send data": State.STREAMING,
            "send end": State.ENDING,
            "send hello": State.GREETING,
            "send error": State.FAILED,
            "receive ack": State.STREAMING,
            "receive stale": State.STREAMING,
            "receive retry": State.IDLE,
            "receive downgrade": State.IDLE,
            "receive done": State.DONE,  # of an end sent before this welcome
            "receive error": State.FAILED,
        },
        State.ENDING: {
            "send hello": State.GREETING,
            "send error": State.FAILED,
            "receive ack": State.ENDING,
            "receive stale": State.ENDING,
            "receive retry": State.IDLE,
            "receive downgrade": State.IDLE,
            "receive done": State.DONE,
            "receive error": State.FAILED,
        },
        State.DONE: {
            "receive ack": State.DONE,
            "receive stale": State.DONE,
            "receive retry": State.DONE,
            "receive done": State.DONE,
            "send error": State.FAILED,
        },
        State.FAILED: {"send error": State.FAILED},
    }
)

DECODER: Table = _table(
    {
        State.WAITING: {
            "receive hello": State.GREETED,
            "receive error": State.FAILED,
            "send error": State.FAILED,
        },
        State.GREETED: {
            "send ack": State.GREETED,  # of what had arrived before this hello
            "send welcome": State.STREAMING,
            "send done": State.DONE,
            "send error": State.FAILED,
        },
        State.STREAMING: {
            "receive data": State.STREAMING,
            "receive end": State.ENDING,
            "receive hello": State.GREETED,
            "receive error": State.FAILED,
            "send ack": State.STREAMING,
            "send error": State.FAILED,
        },
        State.ENDING: {
            "receive data": State.ENDING,  # duplicates only
            "receive end": State.ENDING,
            "receive hello": State.GREETED,
            "receive error": State.FAILED,
            "send ack": State.ENDING,
            "send done": State.DONE,
            "send error": State.FAILED,
        },
        State.DONE: {
            "receive data": State.DONE,  # duplicates only
            "receive end": State.ENDING,
            "receive hello": State.GREETED,
            "receive error": State.DONE,
            "send error": State.FAILED,
        },
        State.FAILED: {"send error": State.FAILED},
    }
)


def diagram(table: Table) -> str:
    """A table as a Mermaid state diagram: an arrow for each pair of states, `!` before what is sent, `?` before what comes."""
    arrows: dict[tuple[State, State], list[str]] = {}
    for state, row in table.items():
        for step, to in row.items():
            arrows.setdefault((state, to), []).append(("!" if step.verb == "send" else "?") + step.kind)
    lines = [f"    {state} --> {to}: {' '.join(steps)}" for (state, to), steps in arrows.items()]
    return "\n".join(["stateDiagram-v2", f"    [*] --> {next(iter(table))}", *lines, "    done --> [*]", "    failed --> [*]"])
