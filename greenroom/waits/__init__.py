"""What a request waits for, made to wait in the event loop."""
