"""A worker's wheels: kept in step with the registry, installed into environments, checked."""
