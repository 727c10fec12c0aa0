"""The gateway: HTTP in front, the store behind, an index for whatever is read in numbers."""
