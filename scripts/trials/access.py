"""What keys, limits, the usage ledger and the state store promise, in figures.

Each row starts gateways of its own, in front of endpoints of this program:
  exactness  what limits admit on 1, 2 and 8 workers, against what they allow
  killed     what a gateway that is killed under load has lost
  disk       full, failing, read-only, damaged and deleted state stores
  sums       the ledger over many requests of every kind, against what the endpoints sent
  secrets    secrets, tokens, hashes and endpoint credentials in everything that can be read
  scale      100,000 keys: memory, changes, and the requests beside them

Each line shows one thing: its figure and the bound, which is the largest allowed figure if nothing
else is said. The run fails when a figure is not within its bound or could not be measured. A row is
a function in a module of `scripts/trials/access_rows/`, marked with `row`.
"""

import http.client
import importlib
import pkgutil
import signal
import sqlite3
import time

from trials import access_rows
from trials.checks import OutOfTime
from trials.cli import add_names, positive
from trials.host import note
from trials.process import NotReady
from trials.report import finish, table

BINARIES = ("olla",)
DRIVERS = ("io_uring", "epoll")


def add_arguments(parser):
    add_names(parser, "--only", [row.name for row in rows()])
    parser.add_argument("--driver", choices=DRIVERS, help="of the gateway; default: its own choice")
    text = "of the row sums (100000)"
    parser.add_argument("--requests", type=positive(int), default=100_000, help=text)
    text = "of the row scale (100000)"
    parser.add_argument("--keys", type=positive(int), default=100_000, help=text)


def rows():
    """All rows in their order."""
    for module in pkgutil.iter_modules(access_rows.__path__):
        importlib.import_module(f"trials.access_rows.{module.name}")
    return sorted(access_rows.ROWS, key=lambda row: row.place)


def run(options):
    def out_of_time(*_):
        raise OutOfTime

    signal.signal(signal.SIGALRM, out_of_time)
    shown = access_rows.Shown()
    day = today()
    for row in rows():
        if row.name not in options.only:
            continue
        shown.row, begun = row.name, time.monotonic()
        signal.alarm(row.seconds_max)
        try:
            row.show(options, shown)
        except (OSError, ValueError, NotReady, http.client.HTTPException, sqlite3.Error) as error:
            shown.failures.append(f"{row.name}: {type(error).__name__}: {error}")
        except OutOfTime:
            shown.failures.append(f"{row.name}: not done after {row.seconds_max} s")
        finally:
            signal.alarm(0)
        note(f"{row.name}: {time.monotonic() - begun:.0f} s")
    if today() != day:
        shown.failures.append(
            "the day (UTC) has changed meanwhile, and quotas with it: run it again"
        )
    if shown.lines:
        print(table(shown.lines))
    return finish(shown.failures)


def today():
    return time.strftime("%Y-%m-%d", time.gmtime())
