"""Proving ground for language models: a served model that batches continuously, simulated or a real vLLM on a CPU."""
