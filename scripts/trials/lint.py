"""Checks the Python, JavaScript and shell code with ruff, Biome and ShellCheck.

ruff (PyPI) and Biome (npm, tests/ui/package-lock.json) are installed below target/ in the pinned
version; ShellCheck is Debian's. --fix formats the Python code and applies the safe fixes.
"""

import subprocess

from trials.cli import add_names
from trials.dashboard import PACKAGES, install_packages
from trials.host import ROOT, TARGET, need, python_packages

RUFF = "ruff==0.17.6"


def add_arguments(parser):
    add_names(parser, "--languages", LANGUAGES)
    parser.add_argument("--fix", action="store_true", help="change the files where it is safe")


def run(options):
    statuses = [
        subprocess.run(command, cwd=ROOT, check=False).returncode
        for language in options.languages
        for command in LANGUAGES[language](options.fix)
    ]
    return 1 if any(statuses) else 0


def python(fix):
    python_packages(TARGET / "ruff", RUFF)
    ruff = TARGET / "ruff" / "bin" / "ruff"
    return [
        [ruff, "check", "--no-cache", *(["--fix"] if fix else [])],
        [ruff, "format", "--no-cache", *([] if fix else ["--diff"])],
    ]


def javascript(fix):
    install_packages()
    biome = PACKAGES / "node_modules" / ".bin" / "biome"
    return [[biome, "lint", "--error-on-warnings", *(["--write"] if fix else [])]]


def shell(_fix):
    listed = subprocess.run(
        ["git", "ls-files", "*.sh", ".ci/run"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return [[need("shellcheck", "shellcheck"), "-x", *listed.stdout.split()]]


LANGUAGES = {"python": python, "javascript": javascript, "shell": shell}
