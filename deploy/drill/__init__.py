"""Production in small, on one machine, and what goes wrong in it: see __main__."""
