"""Work on texts that others wrote: bounded, and away from the event loop where it may take long."""
