"""The stored form of a run's record: how it is cut, kept readable, and read where it is damaged."""
