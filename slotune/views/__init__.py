"""What the ledger means for people, as values: the fleet, an incident, changes in force, effects, the loop's health.

Every page, command, metric and review renders these; none of them asks the ledger on its own. A view reads, and never
writes: it takes a `Reading` and answers frozen values.
"""
