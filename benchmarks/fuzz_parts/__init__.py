"""The parts of `benchmarks/fuzz.py`, one concept a file; nothing here parses options or prints."""
