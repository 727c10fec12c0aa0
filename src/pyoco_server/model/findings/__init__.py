"""What ``check`` and ``doctor`` find, and how they say it."""
