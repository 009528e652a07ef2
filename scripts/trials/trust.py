"""What single clients and backends can do to all others, in figures.

Each row is one attack on a gateway of its own, in front of a backend of this program:
  item     number of the fault in the list of faults that were found
  attack   what is done
  before   the figure of the build in which it was found
  after    the figure of this build
  bound    what the figure must not exceed

The run fails when a figure exceeds its bound or cannot be measured (`inf`). A row is a function in
a module of `scripts/trials/trust_rows/`, marked with `row`.
"""

import http.client
import importlib
import math
import pkgutil

from trials import trust_rows
from trials.cli import add_names
from trials.process import NotReady
from trials.report import finish, table

BINARIES = ("olla",)


def add_arguments(parser):
    add_names(parser, "--rows", [row.name for row in rows()])


def rows():
    """All rows in the order of their items."""
    for module in pkgutil.iter_modules(trust_rows.__path__):
        importlib.import_module(f"trials.trust_rows.{module.name}")
    return sorted(trust_rows.ROWS, key=lambda row: (row.item, row.name))


def run(options):
    shown, failures = [], []
    for row in rows():
        if row.name not in options.rows:
            continue
        try:
            figure = row.measure(options)
        except (OSError, NotReady, http.client.HTTPException) as error:
            # No response in time is worse than any figure.
            figure = math.inf
            failures.append(f"{row.name}: {error}")
        shown.append(
            {
                "item": row.item,
                "attack": row.attack,
                "before": row.before,
                "after": f"{figure:.4g} {row.unit}",
                "bound": f"{row.bound:g} {row.unit}",
            }
        )
        if figure > row.bound:
            failures.append(f"{row.name}: {figure:.4g} {row.unit}, allowed {row.bound:g}")
    print(table(shown))
    return finish(failures)
