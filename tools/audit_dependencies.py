"""Known vulnerabilities of the service's dependencies, by pip-audit: ``python tools/audit_dependencies.py``.

It asks an advisory service. Where none can be reached (a closed network) it says so and ends well: then nothing was looked at.
A finding ends with 1.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
COMMAND = [
    sys.executable,
    "-m",
    "pip_audit",
    "--disable-pip",
    "--require-hashes",
    "--progress-spinner",
    "off",
    "-f",
    "json",
]
SECONDS = 180


def main() -> int:
    command = [*COMMAND, "-r", str(ROOT / "requirements.txt")]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
        found: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    except (subprocess.TimeoutExpired, ValueError, KeyError):
        found = []
    looked_at = [package for package in found if "skip_reason" not in package]
    if not looked_at:
        print("pip-audit: no advisory service can be reached from here; nothing was looked at")
        return 0
    bad = [package for package in looked_at if package["vulns"]]
    for package in bad:
        for problem in package["vulns"]:
            fixed = ", ".join(problem["fix_versions"]) or "no version yet"
            print(f"{package['name']} {package['version']}: {problem['id']}; fixed in {fixed}")
    print(f"pip-audit: {len(looked_at)} of {len(found)} packages looked at, {len(bad)} with known vulnerabilities")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
