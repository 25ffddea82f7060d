"""What a smaller variant is worth under overload, and whether it goes back, in a simulated service."""
