"""Incidents to reports: choose one lever, change it, verify P95, keep or roll back, and tell people."""
