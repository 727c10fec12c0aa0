"""Who sends a request, and what that one may do."""
