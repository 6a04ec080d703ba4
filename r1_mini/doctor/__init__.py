"""The run doctor: is a recipe well before it runs, and a run while it does and afterwards? docs/DOCTOR.md lists all."""
