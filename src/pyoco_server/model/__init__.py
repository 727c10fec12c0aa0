"""What the words mean: states, records and the rules between them. No I/O, no asyncio."""
