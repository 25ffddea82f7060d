"""The embedded default: everything that `make demo` starts, as real processes on loopback. Nothing imports it."""
