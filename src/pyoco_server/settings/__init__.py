"""Every setting, once: where it comes from, what it may be, and which of them are secrets."""
