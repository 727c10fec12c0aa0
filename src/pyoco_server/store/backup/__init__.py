"""Everything that is kept in NATS, into one file and back."""
