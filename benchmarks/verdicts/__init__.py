"""How often the before/after test lies, and how often it sees what is there: `python -m benchmarks.verdicts`."""
