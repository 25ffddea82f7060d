"""How long the history takes to answer: `python -m benchmarks.ledger`."""
