"""Runs the tests and pictures of the dashboard: Node, Chromium and the packages of tests/ui."""

import os
import subprocess

from trials.host import ROOT, TARGET, cargo, need, npm_packages

UI = ROOT / "tests" / "ui"
PACKAGES = TARGET / "ui-tools"


def install_packages():
    """Installs the packages as the lock file has them."""
    files = {name: (UI / name).read_text() for name in ("package.json", "package-lock.json")}
    npm_packages(PACKAGES, files, "ci")


def node(*arguments, **variables):
    """Runs Node with the browser, the packages and a build of the gateway; returns its status."""
    chromium = os.environ.get("CHROMIUM", "chromium")
    variables |= {"CHROMIUM": need(chromium, "chromium"), "UI_TOOLS": str(PACKAGES)}
    install_packages()
    if not os.environ.get("OLLA_BIN"):
        cargo("build", "--quiet", "--bin", "olla")
        variables["OLLA_BIN"] = str(TARGET / "debug" / "olla")
    command = ["node", *arguments]
    return subprocess.run(command, env=os.environ | variables, check=False).returncode
