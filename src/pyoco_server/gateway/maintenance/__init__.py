"""What goes on by itself: lost jobs and owners, retention, and what else nobody asks for."""
