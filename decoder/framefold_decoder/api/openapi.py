"""The service's OpenAPI description: `python -m framefold_decoder.api.openapi > decoder/framefold_decoder/api/openapi.json`."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from framefold_decoder.api.app import create_app
from framefold_decoder.library import Library

COMMITTED = Path(__file__).with_name("openapi.json")


def describe() -> str:
    """The description as JSON, a line per value, so that changes can be read in a diff."""
    with tempfile.TemporaryDirectory() as folder:
        library = Library.open(Path(folder))
        try:
            return json.dumps(create_app(library).openapi(), indent=2, sort_keys=True) + "\n"
        finally:
            library.close()


if __name__ == "__main__":
    sys.stdout.write(describe())
