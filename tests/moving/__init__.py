"""Beside the real pyoco-server 0.5.1: its store, its workers and its clients with ours."""
