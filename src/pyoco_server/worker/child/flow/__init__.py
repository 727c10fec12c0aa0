"""From a job to a flow whose tasks can be called."""
