"""What the loop would have done on recorded history: its own functions, with time and the service replaced."""
