"""The pure deciders of the loop, each named like the step of `tuning.loop` that carries it out."""
