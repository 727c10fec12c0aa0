"""The worker: one asyncio process that takes jobs, and child processes that run them."""
