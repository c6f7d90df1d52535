"""The doctor's report: in the terminal, as JSON, as one HTML file."""
