"""The result of `schedule` as a Markdown table and as a chart, both made from raw.json alone."""

import json
import math
from html import escape

BLANK = "–"
SHOWN = ["requests", "failed", "unfinished", "p50", "p90", "p99", "mean", "e2e p50", "e2e p99"]
SHOWN += ["hits", "loads", "busy", "full", "late"]
SHARES, FINE = ("hits", "busy", "full"), ("late",)
COLOURS = {
    "least-connections": "#b8bec8",
    "sticky": "#5b7fb8",
    "smg": "#4a8f5b",
    "vllm-router": "#9a7fb8",
    "least-time": "#d9623b",
}


def write(document, directory):
    directory.mkdir(parents=True, exist_ok=True)
    files = {
        "raw.json": json.dumps(document) + "\n",
        "table.md": tables(document),
        "chart.svg": chart(document),
    }
    for name, text in files.items():
        (directory / name).write_text(text)
    print(files["table.md"])
    print(f"written: {', '.join(files)} in {directory}")


def cell(key, value):
    if value is None:
        return BLANK
    if key in SHARES:
        return f"{value:.3f}"
    return f"{value:.2f}" if key in FINE else f"{value:,.0f}"


def tables(document):
    """A summary, and a table for each scenario."""
    machine = document["machine"]
    seeds = ", ".join(map(str, document["seeds"]))
    out = [
        f"# Scheduling, {document['made'][:10]}",
        "",
        f"{machine['processor']}, Linux {machine['kernel']}; medians over the seeds {seeds}; one "
        "processor for the gateway, one for the engines and the users.",
        "",
        "## First token, p50 / p99 in milliseconds",
        "",
        *summary(document),
    ]
    for scenario, loads in document["medians"].items():
        out += ["", f"## {scenario}", ""]
        rows = [
            [f"{load}: {column}", *(cell(key, row[key]) for key in SHOWN)]
            for load, columns in loads.items()
            for column, row in columns.items()
        ]
        out += markdown(["", *SHOWN], rows)
    out += slow(document)
    out += [
        "",
        "p50 to mean: first token; e2e: end to end; milliseconds. hits: cached tokens through "
        "prompt tokens. loads: models loaded. busy: share of all slots in use while a request "
        "waits. full: share of the time in which an engine has no free slot. late: p99 of how late "
        "the engines and users themselves were.",
    ]
    if document["failures"]:
        out += ["", "**Not as expected:**", "", *(f"- {text}" for text in document["failures"])]
    return "\n".join(out) + "\n"


def slow(document):
    """A table for engines that are slower for a while; empty without any."""
    rows = [
        [f"{sample['scenario']}: {sample['column']}, seed {sample['seed']}"]
        + [f"{rate:.2f}" for rate in rates]
        for sample in document["samples"]
        for rates in sample["slow"]
    ]
    if not rows:
        return []
    title = "## Requests a second at an engine that is slower for a while"
    return ["", title, "", *markdown(["", "before", "meanwhile", "after"], rows)]


def summary(document):
    rows = []
    for scenario, loads in document["medians"].items():
        for load, columns in loads.items():
            cells = [f"{scenario}, {load}"]
            for column in document["columns"]:
                row = columns.get(column)
                cells.append(short(row) if row else BLANK)
            rows.append(cells)
    return markdown(["", *document["columns"]], rows)


def short(row):
    text = f"{cell('p50', row['p50'])} / {cell('p99', row['p99'])}"
    for key in ("failed", "unfinished"):
        if row[key]:
            text += f", {row[key]:.0f} {key}"
    return text


def markdown(header, lines):
    rule = ["---", *["---:"] * (len(header) - 1)]
    return ["| " + " | ".join(cells) + " |" for cells in (header, rule, *lines)]


def chart(document):
    """Bars of the first token's p50, with a line to p99; logarithmic, a group for each load."""
    left, width, bar, gap, y = 200, 820, 16, 20, 78
    decades = range(6)
    scale = (width - left - 120) / (len(decades) - 1)
    parts = [
        label(16, 28, "First token", 17, "bold"),
        label(16, 50, "bar: p50, line: p99; milliseconds, logarithmic; shorter is better", 13),
    ]
    bars = []
    for scenario, loads in document["medians"].items():
        for load, columns in loads.items():
            bars.append(label(16, y + bar - 4, f"{scenario}, {load}", 13, "bold"))
            for column in document["columns"]:
                row = columns.get(column)
                if not row or row["p50"] is None:
                    continue
                y += bar
                bars += bar_of(column, row, left, y, bar, lambda ms: place(ms, left, scale))
            y += bar + gap
    for decade in decades:
        x = left + decade * scale
        parts.append(f'<line x1="{x:.1f}" y1="66" x2="{x:.1f}" y2="{y}" stroke="#e4e6ea"/>')
        parts.append(label(x, 64, f"{10**decade:,}", 11, anchor="middle"))
    return svg(width, y + 10, [*parts, *bars])


def place(ms, left, scale):
    """Where a time is on the axis, which begins at 1 ms."""
    return left + scale * math.log10(max(ms, 1.0))


def bar_of(column, row, left, y, height, at):
    middle = y + (height - 3) / 2
    p50, p99 = at(row["p50"]), at(row["p99"])
    colour = COLOURS.get(column, "#999")
    return [
        label(left - 8, y + height - 5, column, 12, anchor="end"),
        f'<rect x="{left}" y="{y}" width="{max(p50 - left, 1):.1f}" height="{height - 3}" rx="2" '
        f'fill="{colour}"/>',
        f'<line x1="{p50:.1f}" y1="{middle}" x2="{p99:.1f}" y2="{middle}" stroke="{colour}" '
        'stroke-width="2"/>',
        label(p99 + 6, y + height - 5, short(row), 11),
    ]


def label(x, y, text, size, weight="normal", anchor="start"):
    return (
        f'<text x="{x:.1f}" y="{y}" font-size="{size}" font-weight="{weight}" fill="#333" '
        f'text-anchor="{anchor}">{escape(text)}</text>'
    )


def svg(width, height, parts):
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}" font-family="system-ui, sans-serif">\n'
        f'<rect width="{width}" height="{height}" fill="#fff"/>\n{body}\n</svg>\n'
    )
