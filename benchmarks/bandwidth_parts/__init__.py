"""The parts of `benchmarks/bandwidth.py`, one concept a file; nothing here parses options or prints."""
