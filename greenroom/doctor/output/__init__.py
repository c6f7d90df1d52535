"""The doctor's report: in the terminal and as JSON (terminal), as one HTML file (page)."""
