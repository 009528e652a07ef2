"""Results: tables, percentiles, what the load tools report, and the end of a trial."""


def table(rows):
    """Rows (dictionaries with the same keys) as text in columns, all but the first to the right."""
    columns = list(rows[0])
    cells = [columns] + [[str(row[column]) for column in columns] for row in rows]
    widths = [max(len(line[place]) for line in cells) for place in range(len(columns))]
    lines = []
    for line in cells:
        first, *rest = zip(line, widths)
        rest = [cell.rjust(width) for cell, width in rest]
        lines.append("  ".join([first[0].ljust(first[1]), *rest]))
    return "\n".join(lines)


def percentile(values, percent):
    """The value that `percent` per cent of all are below or at; 0 without values."""
    if not values:
        return 0
    return sorted(values)[min(len(values) - 1, int(len(values) * percent / 100))]


def finish(failures, remark=""):
    """Prints the failures and their number; returns the exit status."""
    for failure in failures:
        print(f"FAILED {failure}")
    print(f"{len(failures)} failures{remark}")
    return 1 if failures else 0


def outcomes(path):
    """(due, end, nonce, kind, outcome) of each request of `olla-loadtest mixed`, in seconds."""
    for line in path.read_text().splitlines():
        due, end, nonce, kind, outcome = line.split()
        yield int(due) / 1e9, int(end) / 1e9, nonce, kind, outcome


def print_late(report):
    """How many requests `olla-loadtest mixed` itself sent late."""
    late = 100 * report["late"] / max(report["requests"], 1)
    sent_late = f"{late:.2f} % sent more than 50 ms late by the load itself"
    print(f"{report['requests']} requests, {sent_late}")
