"""The parts of `benchmarks/quality.py`, one concept a file; nothing here parses options or prints."""
