"""Making, changing and deleting boards with forms."""
