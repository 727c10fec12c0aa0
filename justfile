# Run them with: uv run just <task>

uv := env("UV", "uv")

# List the tasks
default:
    @just --list --unsorted

# Check style and the direction of imports
lint:
    {{ uv }} run ruff check
    {{ uv }} run ruff format --check
    {{ uv }} run lint-imports

# Check the types
types:
    {{ uv }} run mypy

# Run the tests that every change needs (under four minutes)
test *arguments:
    {{ uv }} run pytest {{ arguments }}

# Run the tests that take long
slow *arguments:
    {{ uv }} run pytest -n 0 -m "slow and not browser" {{ arguments }} || [ $? -eq 5 ] # 5: there are none

# Run ordinary user code, and code that attacks its worker, on real workers
usercode *arguments:
    {{ uv }} run pytest -n 0 -m usercode {{ arguments }} || [ $? -eq 5 ]

# Run the tests beside the real pyoco-server 0.5.1. Its worker stands still now and then: what fails is tried again, twice
moving *arguments:
    {{ uv }} run pytest -n 0 -m moving {{ arguments }} || {{ uv }} run pytest -n 0 -m moving --lf {{ arguments }} || {{ uv }} run pytest -n 0 -m moving --lf {{ arguments }}

# Run the tests that kill, stop and cut real processes
faults *arguments:
    {{ uv }} run pytest -n 0 -m faults {{ arguments }} || [ $? -eq 5 ]

# Run the tests of the page in Chromium (Debian: apt-get install chromium fonts-noto-cjk); pictures go to .ci/artifacts
dashboard *arguments:
    {{ uv }} run pytest -n 0 -m "browser and not slow" tests/dashboard {{ arguments }}

# Show the page beside 100,000 runs, and while 50 a second go by
dashboard-slow *arguments:
    {{ uv }} run pytest -n 0 -s -m "browser and slow" tests/dashboard {{ arguments }}

# Fetch the page's modules anew, in the versions that their VENDOR.json names
vendor:
    {{ uv }} run python scripts/vendor.py

# Run the default tests on the oldest Python that we promise
oldest python *arguments:
    UV_PROJECT_ENVIRONMENT=.tools/oldest {{ uv }} sync --quiet --python {{ python }}
    .tools/oldest/bin/python -m pytest {{ arguments }}

# Pin every package anew, to the newest versions that fit together
pins:
    {{ uv }} run python scripts/pin.py

# Start everything on free ports and run the tutorial's flow
demo *arguments:
    {{ uv }} run pyoco-server demo {{ arguments }}

# Measure what benchmarks/README.md publishes
bench *arguments:
    {{ uv }} run python benchmarks/end_to_end.py {{ arguments }}

# Measure lists, metrics and starts beside 100,000 finished runs
bench-history *arguments:
    {{ uv }} run python -m benchmarks.history {{ arguments }}

# Measure whether store and memory level while many more runs go by than are kept
bench-soak *arguments:
    {{ uv }} run python -m benchmarks.soak {{ arguments }}
