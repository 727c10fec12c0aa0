"""What each of our processes does for itself: its log, its background tasks, its limits."""
