"""Side-by-side runs: the same application, the same client, one machine, one command."""
