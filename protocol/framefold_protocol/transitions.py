"""The link's state machine, as one table a role. Whatever is not in the table is an error of whoever did it.

    encoder   idle ─hello▶ greeting ─◀welcome streaming ─end▶ ending ─◀done done
    decoder   waiting ─◀hello greeted ─welcome▶ streaming ─◀end ending ─done▶ done

`data` stands for snapshot, raw-frames and gap; `retry` for an error after which a fresh hello may help.
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
        State.IDLE: {"send hello": State.GREETING, "receive ack": State.IDLE, "receive retry": State.IDLE},
        State.GREETING: {
            "send hello": State.GREETING,
            "receive welcome": State.STREAMING,
            "receive ack": State.GREETING,  # of what was sent before this hello
            "receive done": State.DONE,
            "receive retry": State.GREETING,  # of data sent before this hello
            "receive error": State.FAILED,
        },
        State.STREAMING: {
            "send data": State.STREAMING,
            "send end": State.ENDING,
            "send hello": State.GREETING,
            "receive ack": State.STREAMING,
            "receive welcome": State.STREAMING,  # two hellos were under way
            "receive done": State.DONE,  # of an end sent before this welcome
            "receive retry": State.IDLE,
            "receive error": State.FAILED,
        },
        State.ENDING: {
            "send hello": State.GREETING,
            "receive ack": State.ENDING,
            "receive welcome": State.STREAMING,
            "receive done": State.DONE,
            "receive retry": State.IDLE,
            "receive error": State.FAILED,
        },
        State.DONE: {  # late answers to what was said before
            "receive done": State.DONE,
            "receive ack": State.DONE,
            "receive welcome": State.DONE,
            "receive retry": State.DONE,
        },
        State.FAILED: {},
    }
)

DECODER: Table = _table(
    {
        State.WAITING: {"receive hello": State.GREETED, "receive error": State.FAILED, "send error": State.FAILED},
        State.GREETED: {
            "send ack": State.GREETED,  # of what had arrived before this hello
            "send welcome": State.STREAMING,
            "send done": State.DONE,
            "send error": State.FAILED,
        },
        State.STREAMING: {
            "receive data": State.STREAMING,
            "receive hello": State.GREETED,
            "receive end": State.ENDING,
            "receive error": State.FAILED,
            "send ack": State.STREAMING,
            "send error": State.FAILED,
        },
        State.ENDING: {
            "receive data": State.ENDING,  # duplicates only
            "receive hello": State.GREETED,
            "receive end": State.ENDING,
            "receive error": State.FAILED,
            "send ack": State.ENDING,
            "send done": State.DONE,
            "send error": State.FAILED,
        },
        State.DONE: {
            "receive data": State.DONE,
            "receive hello": State.GREETED,
            "receive end": State.ENDING,
            "receive error": State.DONE,
        },
        State.FAILED: {},
    }
)
