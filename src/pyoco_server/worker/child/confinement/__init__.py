"""What stands between a run's process and the rest of the machine."""
