"""Proofs in hostile surroundings: interrupts, kills, frozen processes, restarts, outages, clocks.

What may go wrong for good runs in a process of its own, from ``programs/``, and reports what it
saw. Each proof has a size that takes seconds; with ``PROOF=full`` all of them take half an hour.
"""
