"""The parts of `benchmarks/soak.py`, one concept a file; nothing here parses options or prints."""
