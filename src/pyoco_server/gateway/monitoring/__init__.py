"""How the system is doing: metrics, health, capacity, and what ``doctor`` finds."""
