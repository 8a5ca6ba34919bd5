"""SPEC.md and the code say the same: state diagrams, fields, error codes, worked examples."""

import ast
import json
import re
from dataclasses import MISSING, Field, fields
from pathlib import Path

import pytest

from framefold_protocol import messages, segments, wire
from framefold_protocol.anscombe import VarianceStabilised
from framefold_protocol.masks import MaskSpec
from framefold_protocol.transitions import DECODER, ENCODER, diagram

ROOT = Path(__file__).parents[2]
SPEC = (ROOT / "protocol" / "SPEC.md").read_text()
VECTORS = json.loads((ROOT / "protocol" / "vectors" / "messages.json").read_text())
SOURCES = [path for part in ("protocol", "encoder", "decoder") for path in (ROOT / part).rglob("*.py")]
MAPS = {
    "map `stream`": messages.StreamMetadata,
    "map `family`": MaskSpec,
    "map `quantisation`": VarianceStabilised,
    "`hello`": messages.Hello,
    "`welcome`": messages.Welcome,
    "`snapshot`": messages.Snapshot,
    "`raw-frames`": messages.RawFrames,
    "`audit`": messages.Audit,
    "`gap`": messages.Gap,
    "`ack`": messages.Ack,
    "`end`": messages.End,
    "`done`": messages.Done,
    "`error`": messages.Error,
}


def section(title: str, level: int) -> str:
    """What stands below a heading."""
    found = re.search(rf"^{'#' * level} {re.escape(title)}$(.*?)(?=^#{{1,{level}}} |\Z)", SPEC, re.MULTILINE | re.DOTALL)
    assert found, f"SPEC.md has no section {title}"
    return found[1]


def rows(title: str, level: int) -> list[list[str]]:
    """The cells of the first table below a heading."""
    table = re.search(r"(?:^\|.*\n)+", section(title, level), re.MULTILINE)
    return [[cell.strip() for cell in row.strip("|").split(" |")] for row in table[0].splitlines()[2:]]


def default(field: Field) -> str | None:
    """As SPEC.md says it; None where there is none."""
    if field.default is MISSING:
        return None
    return {"None": "nil", "": "empty", "False": "false"}.get(str(field.default), str(field.default).removesuffix(".0"))


@pytest.mark.parametrize(("role", "table"), [("Encoder", ENCODER), ("Decoder", DECODER)])
def test_the_state_diagrams_are_those_of_the_tables(role, table):
    assert f"{role}:\n\n```mermaid\n{diagram(table)}\n```\n" in SPEC, "print(diagram(table)) and paste it into SPEC.md"


@pytest.mark.parametrize(("title", "described"), MAPS.items(), ids=lambda value: value if isinstance(value, str) else "")
def test_every_field_is_described_with_its_default(title, described):
    written = {name: cells[1] for cells in rows(title, 3) for name in re.findall(r"`(\w+)`", cells[0])}
    known = {field.name: default(field) for field in fields(described) if field.name != "payload"}
    assert set(written) == set(known)
    for name, value in known.items():
        if "default" in written[name]:
            assert re.search(r"default `?([\w.]+)`?", written[name])[1] == value, f"{title} {name}"
        elif "`" not in written[name] and written[name]:  # else another table has it
            assert value is None, f"{title} {name} has a default"


def test_every_message_has_a_section():
    assert {cls.__name__ for cls in MAPS.values()} >= {cls.__name__ for cls in messages.Message.__args__}


def raised() -> dict[str, set[bool]]:
    """Each code that the code tells a peer, and whether with `retry`."""
    found: dict[str, set[bool]] = {}
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "RemoteProtocolError":
                given = {keyword.arg: keyword.value for keyword in node.keywords}
                codes = (
                    [text.value for text in ast.walk(given["code"]) if isinstance(text, ast.Constant)]
                    if "code" in given
                    else []
                )
                retry = isinstance(given.get("retry"), ast.Constant) and given["retry"].value
                for code in codes or ["malformed"] * ("code" not in given):
                    found.setdefault(code, set()).add(retry)
    return found


def test_the_error_table_has_every_code_and_no_other():
    table = {cells[0].strip("`"): cells[1] == "yes" for cells in rows("Errors", 2)}
    assert set(table) == set(raised())
    for code, retries in raised().items():
        if code != "no-session":  # its `retry` is computed
            assert retries == {table[code]}, code


@pytest.mark.parametrize("what", ["an ack", "a snapshot in planes"])
def test_the_worked_examples_are_vectors(what):
    case = next(case for case in VECTORS["messages"] if case["what"] == what)
    blocks = re.findall(r"```\n(.*?)```", section("Worked examples", 2), re.DOTALL)
    shown = [
        "".join(re.match(r"((?:[0-9a-f]{2} ?)*)", line)[0].replace(" ", "") for line in block.splitlines()) for block in blocks
    ]
    assert "".join(case["parts"]) in shown


def test_the_numbers_are_those_of_the_code():
    assert f"version {messages.PROTOCOL_VERSION}\n" in SPEC.splitlines(keepends=True)[0]
    assert wire.MAX_HEADER_BYTES == 2 * 2**20
    assert wire.MAX_ENTRIES == 1024
    assert f"`{segments.MAGIC.decode()}`" in section("Journal file", 2)
    head = segments.Head(run=3, first=7, metadata=b"whose")
    cells = {row[1]: int(row[0]) for row in rows("Journal file", 2)}
    packed = head.pack()
    assert packed[cells["magic"] : cells["version"]] == segments.MAGIC
    assert packed[cells["run"] : cells["first"]] == (3).to_bytes(8, "little")
    assert packed[cells["first"] : cells["length"]] == (7).to_bytes(8, "little")
    assert packed[cells["metadata"] :] == b"whose"
