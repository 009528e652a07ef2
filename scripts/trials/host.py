"""The machine that the programs run on: the source tree, its binaries, and packages to install."""

import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TARGET = ROOT / os.environ.get("CARGO_TARGET_DIR", "target")
# Debian keeps servers out of a user's path.
SEARCH_PATH = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
NO_SERVICES = Path("/usr/sbin/policy-rc.d")
# Of each binary: its Cargo package, its option, and the variable that names a build to use.
BINARIES = {
    "olla": ("olla", "bin", "OLLA_BIN", "the gateway"),
    "olla-loadtest": ("olla-loadtest", "loadtest_bin", "LOADTEST_BIN", "the load tools"),
}


class Failed(Exception):
    """Ends the program with this message and status 1."""


class WrongUsage(Failed):
    """The same for options that do not go together: status 2."""


def note(text):
    print(text, file=sys.stderr, flush=True)


# ---- Binaries of this tree ----


def add_binaries(parser, names):
    """Adds the options that choose the binaries `names`."""
    for name in names:
        _, option, variable, what = BINARIES[name]
        parser.add_argument(
            f"--{option.replace('_', '-')}",
            type=Path,
            metavar="PATH",
            help=f"{what} to use instead of building a release binary (or set {variable})",
        )
    if names:
        parser.add_argument(
            "--no-build", action="store_true", help="use the release binaries as they are"
        )


def find_binaries(options, names):
    """Sets the binaries in `options`, building those that were not given."""
    for name in names:
        package, option, variable, what = BINARIES[name]
        given = getattr(options, option) or os.environ.get(variable)
        path = Path(given or TARGET / "release" / name).resolve()
        if not given and not options.no_build:
            cargo("build", "--release", "--package", package, "--bin", name)
        if not os.access(path, os.X_OK):
            raise Failed(f"{path} is missing; build {what}: cargo build --release -p {package}")
        setattr(options, option, path)


def cargo(*arguments):
    if subprocess.run(["cargo", *arguments], cwd=ROOT, check=False).returncode:
        raise Failed(f"cargo {' '.join(arguments)} failed")


# ---- Packages ----


def executable(name, package):
    """The path of an installed program; Failed if there is none."""
    path = shutil.which(name, path=SEARCH_PATH)
    if not path:
        raise Failed(f"{name} is not installed (Debian: sudo apt-get install {package})")
    return path


def need(name, package):
    """The path of a program; installs its Debian package when it is missing and we are root."""
    if shutil.which(name, path=SEARCH_PATH) or os.geteuid() or not shutil.which("apt-get"):
        return executable(name, package)
    note(f"installing {package} ...")
    # The installation must start no service: the programs run with files of our own.
    made = not NO_SERVICES.exists()
    if made:
        NO_SERVICES.write_text("#!/bin/sh\nexit 101\n")
        NO_SERVICES.chmod(0o755)
    try:
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        install = ["apt-get", "install", "-yqq", "--no-install-recommends", package]
        for command in (["apt-get", "update", "-qq"], install):
            run_quietly(command, env=environment)
    finally:
        if made:
            NO_SERVICES.unlink()
    return executable(name, package)


def run_quietly(command, **options):
    """Runs a command that prints only when it fails."""
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, **options
    )
    if done.returncode:
        tail = done.stdout.decode(errors="replace").splitlines()[-5:]
        raise Failed("\n".join([f"{' '.join(map(str, command))} failed:", *tail]))


def installed(directory, packages, install):
    """Calls `install` unless `directory` has exactly these packages; returns whether it did."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    marker = directory / "installed"
    # Two installations at once would write into each other's files.
    with open(directory.parent / f"{directory.name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if marker.exists() and marker.read_text() == packages:
            return False
        note(f"installing packages into {directory} ...")
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir()
        install()
        marker.write_text(packages)
    return True


def python_packages(directory, *packages):
    """Installs packages from PyPI into a directory of their own; returns whether it had to."""
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    pip += ["--root-user-action=ignore", "--target", directory, *packages]
    return installed(directory, " ".join(packages), lambda: run_quietly(pip))


def use_python_packages(directory, *packages):
    """Installs packages and makes this process import them."""
    fresh = python_packages(directory, *packages)
    sys.path.insert(0, str(directory))
    return fresh


def npm_packages(directory, files, *arguments):
    """Runs `npm ARGUMENTS` in `directory`, with `files` (text by name), unless that is done."""
    need("node", "nodejs")
    need("npm", "npm")

    def install():
        for name, text in files.items():
            (directory / name).write_text(text)
        run_quietly(["npm", *arguments, "--prefix", directory, "--no-audit", "--no-fund"])

    installed(directory, "\n".join([*arguments, *files.values()]), install)
