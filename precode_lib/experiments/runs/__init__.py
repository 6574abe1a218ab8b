"""The work behind each kind of cell; only who runs cells imports it, and torch."""
