"""A server of a language model to try slotune on: an emulated engine, its metrics by vLLM's names, and its load."""
