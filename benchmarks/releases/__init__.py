"""Releases in a simulated service: bad ones that have to be named and taken back, harmless ones that must be left."""
