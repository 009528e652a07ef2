"""The command line of `scripts/run`: finds the program, parses its options and calls it.

The module of a program has three parts: a docstring, which is its help text and begins with its
entry in the list; `add_arguments(parser)`; and `run(options)`, which returns the exit status.
"""

import argparse
import difflib
import importlib
import os
import signal
import sys

from trials.host import Failed, WrongUsage, add_binaries, find_binaries
from trials.process import NotReady

PROGRAMS = [
    "access",
    "bench-oha",
    "bench-wrk",
    "catalogue",
    "chaos",
    "clients",
    "compare",
    "dialects",
    "fuzz",
    "hostile",
    "libraries",
    "lint",
    "llama",
    "metrics",
    "pictures",
    "ratelimit",
    "real",
    "real-schedule",
    "refusals",
    "reload",
    "schedule",
    "soak",
    "spread",
    "trust",
    "ui",
]
USAGE = """\
usage: scripts/run NAME [ARGUMENT]...
       scripts/run NAME --help

Exit status: 0 if everything is as expected, 1 if something is not or could not be started, 2 for an
invalid command line. Programs that need release binaries build them first.
"""


def main(arguments):
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE)
        for name in PROGRAMS:
            print(f"  {name:<11} {load(name).__doc__.splitlines()[0]}")
        return 0
    name, *rest = arguments
    if name not in PROGRAMS:
        near = difflib.get_close_matches(name, PROGRAMS, 1, 0.4)
        hint = f'did you mean "{near[0]}"?' if near else "scripts/run --help lists all names"
        print(f'scripts/run: unknown name "{name}"; {hint}', file=sys.stderr)
        return 2
    module = load(name)
    parser = argparse.ArgumentParser(
        prog=f"scripts/run {name}",
        description=module.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    binaries = getattr(module, "BINARIES", ())
    add_binaries(parser, binaries)
    module.add_arguments(parser)
    options = parser.parse_args(rest)
    # Set explicitly: SIGINT is ignored in a process that a shell script starts in the background.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    # All addresses are on loopback, where a proxy of the environment has no place.
    os.environ["NO_PROXY"] = os.environ["no_proxy"] = "127.0.0.1,localhost"
    try:
        find_binaries(options, binaries)
        return module.run(options)
    except WrongUsage as reason:
        parser.error(str(reason))
    except (Failed, NotReady) as reason:
        print(f"scripts/run {name}: {reason}", file=sys.stderr)
    return 1


def load(name):
    """The module of a program."""
    return importlib.import_module(f"trials.{name.replace('-', '_')}")


def names_from(known):
    """The argument type for a comma-separated list of names out of `known`."""

    def parse(text):
        names = [name for name in text.split(",") if name]
        for name in names:
            if name not in known:
                near = difflib.get_close_matches(name, known, 1, 0.0)
                raise argparse.ArgumentTypeError(
                    f'expected names out of {", ".join(known)}, got "{name}"; '
                    f'did you mean "{near[0]}"?'
                )
        if not names:
            raise argparse.ArgumentTypeError(f"expected names out of {', '.join(known)}, got none")
        return names

    return parse


def add_names(parser, option, known, default=None, text="comma-separated; default: all of "):
    """Adds an option that takes names out of `known`."""
    default = list(known) if default is None else default
    parser.add_argument(
        option,
        type=names_from(list(known)),
        default=default,
        metavar="A,B",
        help=text + ", ".join(known),
    )


def positive(kind):
    """The argument type for a number above zero; `kind` is int or float."""

    def parse(text):
        try:
            if kind(text) > 0:
                return kind(text)
        except ValueError:
            pass
        raise argparse.ArgumentTypeError(f'expected a number above 0, got "{text}"')

    return parse
