"""The proving ground: a simulated inference service, faults, policies, and one table of who copes how well."""
