"""Release a version: its number, its notes and their date in one commit, with a tag.

    python tools/release.py 0.2.0

The version stands in pyproject.toml, and what quotes it follows; "Unreleased" in
CHANGELOG.md becomes the version. Nothing leaves this clone.
"""

import datetime
import re
import subprocess
import sys
from pathlib import Path

from packaging.version import Version

NOTES = Path("CHANGELOG.md")
NUMBER = r"\d+\.\d+\.\d+"
QUOTES = {  # each file that says the version, and the words before it
    Path("pyproject.toml"): '^version = "',
    Path("CITATION.cff"): "^version: ",
    Path("chapters/bibliography.md"): "bnlib ",
}


def run(*command: str) -> str:
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def check(version: str):
    """Refuse what is no release, before anything is written."""
    if run("git", "status", "--porcelain"):
        sys.exit("No release: there are changes that are not committed")
    now = re.search(
        f'^version = "({NUMBER})"', Path("pyproject.toml").read_text(), re.M
    )
    newer = re.fullmatch(NUMBER, version) and Version(version) > Version(now[1])
    if not newer or run("git", "tag", "--list", f"v{version}"):
        sys.exit(f"No release: {version!r} is not newer than {now[1]}, or has a tag")
    if not re.search(r"^## Unreleased\n(?:(?!## ).*\n)*?- ", NOTES.read_text(), re.M):
        sys.exit(f"No release: in {NOTES} nothing is listed under Unreleased")


def write(version: str):
    """Put the version where it belongs."""
    head = f"## Unreleased\n\n## {version} - {datetime.date.today()}\n"
    NOTES.write_text(NOTES.read_text().replace("## Unreleased\n", head, 1))
    for path, before in QUOTES.items():
        pattern, new = f"({before}){NUMBER}", rf"\g<1>{version}"
        text, found = re.subn(pattern, new, path.read_text(), flags=re.M)
        assert found == 1, f"{path} should say the version once, not {found} times"
        path.write_text(text)


def release(version: str):
    """In the root of a clone: all of it, or nothing."""
    check(version)
    try:
        write(version)
        subprocess.run(["make", "check"], check=True)
    except BaseException:
        run("git", "checkout", "-q", "--", ".")
        raise
    run("git", "commit", "-qam", f"Version {version}")
    run("git", "tag", "-a", f"v{version}", "-m", f"Version {version}")
    print(f"v{version} is committed and tagged; git push --follow-tags publishes it")


if __name__ == "__main__":
    release(sys.argv[1]) if len(sys.argv) == 2 else sys.exit(__doc__)
