"""The command line and the composition root: the one place that reads the registries and builds the loop."""
