"""Fetches the modules that the dashboard brings along, as each folder's VENDOR.json lists them.

To update one, change its ``version`` there and run: uv run python scripts/vendor.py
Needs npm. A file's bare imports are rewritten to the file beside it, for a browser finds no packages; nothing else is
changed but for a source map's address, which would lead nowhere.
"""

import hashlib
import json
import re
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
FOLDERS = [ROOT / "src/pyoco_server/dashboard/vendor", ROOT / "tests/dashboard/vendor"]
_SOURCE_MAP = re.compile(r"\s*//# sourceMappingURL=\S+\s*$")
_IMPORT = re.compile(r'\bfrom\s*"([@\w/-]+)"')


def main() -> None:
    """Write every listed file, its licence, and what the list says of them."""
    for folder in FOLDERS:
        listing = folder / "VENDOR.json"
        entries = json.loads(listing.read_text())
        places = {entry["import"]: f"./{entry['file']}" for entry in entries if entry.get("import")}
        with tempfile.TemporaryDirectory() as temporary:
            for entry in entries:
                vendor(entry, folder, unpack(entry["package"], entry["version"], Path(temporary)), places)
                print(f"{entry['package']} {entry['version']}: {entry['file']}")
        listing.write_text(json.dumps(entries, indent=2) + "\n")


def unpack(package: str, version: str, temporary: Path) -> Path:
    """Fetch a package, and give the folder of its files."""
    folder = temporary / f"{package.replace('/', '-')}-{version}"
    if not folder.exists():
        folder.mkdir()
        packed = subprocess.run(
            ["npm", "pack", "--silent", f"{package}@{version}"], check=True, cwd=folder, capture_output=True, text=True
        )
        with tarfile.open(folder / packed.stdout.strip()) as archive:
            archive.extractall(folder, filter="data")
    return folder / "package"


def vendor(entry: dict[str, Any], folder: Path, package: Path, places: dict[str, str]) -> None:
    """Write one file and its licence."""
    original = (package / entry["source"]).read_bytes()
    text = _SOURCE_MAP.sub("\n", original.decode())
    text = _IMPORT.sub(lambda found: f'from"{places[found[1]]}"', text)
    licence = folder / entry["licence_file"]
    licence.parent.mkdir(exist_ok=True)
    licence.write_bytes((package / entry["licence_source"]).read_bytes())
    (folder / entry["file"]).write_text(text)
    entry["licence"] = json.loads((package / "package.json").read_text())["license"]
    entry["source_sha256"] = hashlib.sha256(original).hexdigest()
    entry["sha256"] = hashlib.sha256(text.encode()).hexdigest()


if __name__ == "__main__":
    main()
