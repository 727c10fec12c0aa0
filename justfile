# The tasks, the same on a laptop and in CI: uv run just <task>

# List the tasks
default:
    @just --list

# Style, formatting and the layers
lint:
    uv run ruff check .
    uv run ruff format --check .
    uv run lint-imports

# Types
types:
    uv run mypy

# The tests that take under four minutes
test *arguments:
    uv run pytest {{arguments}}

# The tests that take longer
slow:
    uv run pytest -m slow

# The tests that kill, stop and cut real processes
faults:
    uv run pytest -m faults

# Pin the newest versions of all dependencies
pins:
    uv run python scripts/pin.py

# Everything at once, told on the terminal
demo:
    uv run pyoco-server demo

# Measure what benchmarks/README.md publishes
bench *arguments:
    uv run python benchmarks/end_to_end.py {{arguments}}
