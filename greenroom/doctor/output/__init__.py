"""What the doctor says: in the terminal, as JSON, as one HTML file."""
