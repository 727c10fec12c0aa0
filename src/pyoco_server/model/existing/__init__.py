"""What the existing pyoco-server writes and can run: its API keys, jobs and flows."""
