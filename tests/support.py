"""Constants and helpers that several rings of tests use."""

PASSWORD = "correct horse battery staple"
