"""The parts of `benchmarks/pipeline.py`, one concept a file; nothing here parses options or prints."""
