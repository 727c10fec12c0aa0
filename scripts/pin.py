"""Pins every package, transitive ones too, in ``[tool.uv] constraint-dependencies`` of pyproject.toml.

A lock file would carry download addresses; constraints carry names and versions alone.
Run it with: uv run just pins
"""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
BEGIN, END = "# pins: begin (made by scripts/pin.py)", "# pins: end"


def main() -> None:
    """Resolve without constraints, and write what came out."""
    path = ROOT / "pyproject.toml"
    text = path.read_text()
    bare = re.sub(rf"{re.escape(BEGIN)}.*?{re.escape(END)}\n", "", text, flags=re.DOTALL)
    pins = resolve(bare)
    block = "\n".join([BEGIN, "constraint-dependencies = [", *(f'  "{pin}",' for pin in pins), "]", END, ""])
    path.write_text(bare.replace("[tool.uv]\n", f"[tool.uv]\n{block}", 1))
    print(f"{len(pins)} packages pinned")


def resolve(pyproject: str) -> list[str]:
    """Give the newest versions that fit together, as ``name==version``."""
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder)
        (project / "pyproject.toml").write_text(pyproject)
        (project / "README.md").touch()
        (project / "LICENSE").touch()
        (project / "src/pyoco_server").mkdir(parents=True)
        (project / "src/pyoco_server/__init__.py").touch()
        uv = [os.environ.get("UV", "uv"), "--quiet", "--project", folder]
        subprocess.run([*uv, "lock", "--upgrade"], check=True, cwd=folder)
        exported = subprocess.run(
            [*uv, "export", "--frozen", "--all-extras", "--all-groups", "--no-hashes", "--no-emit-project",
             "--no-annotate", "--no-header"],
            check=True, cwd=folder, capture_output=True, text=True,
        ).stdout  # fmt: skip
    lines = [line.partition(";")[0].strip() for line in exported.splitlines() if "==" in line]
    names = [line.partition("==")[0] for line in lines]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        sys.exit(f"several versions of {', '.join(sorted(twice))} would be needed; raise a lower bound")
    return sorted(lines)


if __name__ == "__main__":
    main()
