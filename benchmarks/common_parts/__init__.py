"""What several benchmarks have in common: tables, progress, the machine, the document; nothing here parses options."""
