"""Replaying recorded history causally through the code that runs live."""
