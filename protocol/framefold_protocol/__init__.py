"""What encoder and decoder agree on: masks, messages, their bytes, and the session between them.

No sockets, clocks or threads in here: bytes in, events out. `protocol/SPEC.md` is the contract, this is its implementation.
"""
