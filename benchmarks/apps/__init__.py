"""Applications to measure: plain blocking code, so that any WSGI server can run them unchanged."""
