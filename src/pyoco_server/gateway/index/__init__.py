"""What is known of all runs and workers: lists, counts and statistics, without a look at the store."""
