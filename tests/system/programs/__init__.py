"""The programs of the proofs: ``python -m tests.system.programs.<name>``, with CACHE set."""
