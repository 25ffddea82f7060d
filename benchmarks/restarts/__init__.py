"""Leaking replicas, really: processes under a limit of memory, restarted by the loop or left alone."""
