"""How runs come to be, and how they are asked to stop: submissions, reruns, cancels, and the check of flow texts."""
