"""Two sides of a service compared for people: how sides are named and read, how the result is said and drawn."""
