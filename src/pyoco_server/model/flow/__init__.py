"""A flow.yaml: its keys, its graph, its names, and what is checked of them."""
