"""Fuzzes the parsers: heads, chunks, inspection, translation, forms and compressed bodies.

Needs a nightly toolchain (`rustup toolchain install nightly`), and installs cargo-fuzz when it is
missing. Findings are below fuzz/artifacts or engine/fuzz/artifacts. A target begins with the inputs
in fuzz/seeds, if it has some, and with what earlier runs found.
"""

import shutil

from trials.cli import add_names, positive
from trials.host import ROOT, cargo

TARGETS = {
    "head": "engine/fuzz",
    "chunk": "engine/fuzz",
    "inspect": "fuzz",
    "translate": "fuzz",
    "form": "fuzz",
    "ollama_request": "fuzz",
    "ollama_stream": "fuzz",
    "responses_request": "fuzz",
    "responses_stream": "fuzz",
    "encoding": "fuzz",
}


def add_arguments(parser):
    text = "for each target (600)"
    parser.add_argument("--seconds", type=positive(int), default=600, help=text)
    add_names(parser, "--targets", TARGETS)


def run(options):
    if not shutil.which("cargo-fuzz"):
        cargo("install", "cargo-fuzz", "--locked")
    for target in options.targets:
        folder = ROOT / TARGETS[target]
        corpus, seeds = folder / "corpus" / target, folder / "seeds" / target
        corpus.mkdir(parents=True, exist_ok=True)
        arguments = ["--fuzz-dir", folder, target, corpus]
        limits = [f"-max_total_time={options.seconds}", "-max_len=16384", "-print_final_stats=1"]
        if seeds.exists():
            arguments.append(seeds)
            limits.append(f"-dict={folder / 'dialects.dict'}")
        cargo("+nightly", "fuzz", "run", *map(str, arguments), "--", *limits)
    return 0
