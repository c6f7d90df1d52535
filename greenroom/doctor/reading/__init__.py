"""Reading an application without importing it: its own files, its deployment files, its packages."""
