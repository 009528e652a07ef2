"""Takes the pictures of the dashboard in docs/dashboard again, in about three minutes."""

import subprocess

from trials.dashboard import UI, node
from trials.host import ROOT, need

PICTURES = ROOT / "docs" / "dashboard"


def add_arguments(parser):
    pass


def run(_options):
    pngquant = need("pngquant", "pngquant")
    status = node(UI / "shots.mjs", PICTURES)
    if status:
        return status
    # Flat colours: a palette takes a third of the size, and looks the same.
    options = ["--force", "--ext", ".png", "--skip-if-larger", "--strip"]
    return subprocess.run([pngquant, *options, *PICTURES.glob("*.png")], check=False).returncode
