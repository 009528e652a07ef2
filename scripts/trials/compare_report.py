"""The result of `compare` as Markdown tables and as a chart, both made from raw.json alone."""

from html import escape

BLANK = "–"
MB = 2**20
# The bounds between which the two drivers count as alike.
ALIKE = (0.85, 1.15)
# Title, group, measure, digits and factor of each column.
MEMORY_COLUMNS = {
    "idle": [
        ("KB each", "values", "each", 1, 1 / 1024),
        ("each × nginx", "to_nginx", "each", 2, 1),
        ("before MB", "values", "before", 1, 1 / MB),
        ("with all MB", "values", "held", 1, 1 / MB),
    ]
}
MEMORY_COLUMNS["streams"] = [
    *MEMORY_COLUMNS["idle"],
    ("after MB", "values", "after", 1, 1 / MB),
    ("after/before", "values", "after_share", 2, 1),
]
COLOURS = {
    "relay": "#b8bec8",
    "relay-epoll": "#d5d9df",
    "nginx": "#4a8f5b",
    "haproxy": "#5b7fb8",
    "olla": "#d9623b",
    "olla-quiet": "#e5855f",
    "olla-epoll": "#eda287",
    "olla-key": "#a8472c",
    "olla-keys": "#7d3320",
    "olla-least-connections": "#c9a53b",
}


def tables(document, scenarios):
    """The goals, a summary, and a table for each scenario."""
    machine = document["machine"]
    options = document["options"]
    out = [
        f"# Comparison, {document['made'][:10]}",
        "",
        f"{machine['processor'] or 'unknown processor'}, {machine['processors']} processors, "
        f"Linux {machine['kernel']}; {options['rounds']} rounds of {options['seconds']:g} s; one "
        "worker each where no other number is named. Each cell has the median of the rounds, and "
        "in brackets the least and the greatest. Ratios are made within a round.",
    ]
    out += ["", ", ".join(escape(text) for text in machine["versions"].values())]
    used = (f"{name} {driver}" for name, driver in document["drivers"].items())
    out += ["", f"Drivers: {', '.join(used)}."]
    if document["goals"]:
        out += ["", "## Goals", "", *_goals(document)]
    if document["epoll_to_io_uring"]:
        out += ["", "## Processor time on epoll / on io_uring", "", *_drivers(document)]
    out += ["", "## Processor time of the target, microseconds", "", *_summary(document)]
    for scenario in document["scenarios"]:
        rows = document["results"].get(scenario, {})
        out += ["", f"## {scenario}", "", *_about(scenario, document)]
        out += _scenario(scenarios[scenario], rows, document["targets"])
    wrong = [
        f"{scenario}: {target}"
        for scenario, rows in document["results"].items()
        for target, row in rows.items()
        if not row["ok"]
    ]
    if wrong:
        out += ["", f"**Not all responses were correct** (see raw.json): {', '.join(wrong)}."]
    return "\n".join(out) + "\n"


def _goals(document):
    names = list(document["goals"][0]["targets"])
    lines = []
    for goal in document["goals"]:
        cells = [goal["text"], BLANK if goal["bound"] is None else f"≤ {goal['bound']:g}"]
        for name in names:
            value = goal["targets"][name]
            text = _spread(value, 2)
            reached = value and goal["bound"] is not None and value["median"] <= goal["bound"]
            cells.append(f"**{text}**" if reached else text)
        lines.append(cells)
    return [*_markdown(["", "goal", *names], lines), "", "Bold: the median reaches the goal."]


def _drivers(document):
    lines = []
    for scenario, value in document["epoll_to_io_uring"].items():
        text = _spread(value, 2)
        alike = ALIKE[0] <= value["median"] <= ALIKE[1]
        lines.append([scenario, f"**{text}**" if alike else text])
    foot = f"Goal: from {ALIKE[0]:g} to {ALIKE[1]:g}. Bold: the median reaches it."
    return [*_markdown(["", "olla-epoll / olla"], lines), "", foot]


def _summary(document):
    timed = [
        name
        for name in document["scenarios"]
        if any("cpu_us" in row["values"] for row in document["results"].get(name, {}).values())
    ]
    lines = []
    for target in document["targets"]:
        if target == "direct":
            continue
        cells = [target]
        for scenario in timed:
            row = document["results"].get(scenario, {}).get(target)
            ratio = _median(row, "to_nginx", "cpu_us")
            suffix = "" if ratio is None else f" ({ratio:.2f} ×)"
            cells.append(_number(_median(row, "values", "cpu_us"), 1) + suffix)
        lines.append(cells)
    return [*_markdown(["", *timed], lines), "", "In brackets: divided by nginx's."]


def _about(scenario, document):
    """A sentence on what a scenario did that only the run knows."""
    if scenario in document["counts"]:
        return [f"{document['counts'][scenario]:,} at once.", ""]
    return []


def _scenario(scenario, rows, targets):
    lines = []
    columns = MEMORY_COLUMNS[scenario.kind] if scenario.is_memory else _columns(scenario)
    for target in targets:
        if target not in rows:
            continue
        row = rows[target]
        cells = [target + ("" if row["ok"] else " (!)")]
        for _, group, measure, digits, factor in columns:
            cells.append(_spread(row[group].get(measure), digits, factor))
        lines.append(cells)
    return _markdown(["", *(column[0] for column in columns)], lines)


def _columns(scenario):
    """The columns of a scenario about processor time: title, group, measure, digits, factor."""
    counted = scenario.counted
    columns = [
        (f"{counted}s/s", "values", "rate", 0, 1),
        (f"CPU µs/{counted}", "values", "cpu_us", 1, 1),
        ("CPU × nginx", "to_nginx", "cpu_us", 2, 1),
        ("CPU %", "values", "cpu_share", 0, 100),
        ("p50 µs", "values", "p50", 0, 1),
        ("p99 µs", "values", "p99", 0, 1),
        ("p99 × nginx", "to_nginx", "p99", 2, 1),
        ("p99.9 µs", "values", "p999", 0, 1),
        ("p99.9 × nginx", "to_nginx", "p999", 2, 1),
    ]
    if counted == "event":
        columns += [
            ("first p50 µs", "values", "first_p50", 0, 1),
            ("first p50 × nginx", "to_nginx", "first_p50", 2, 1),
            ("first p99 µs", "values", "first_p99", 0, 1),
        ]
    else:
        columns += [
            ("added p50 µs", "values", "added_p50", 0, 1),
            ("added p50 × nginx", "to_nginx", "added_p50", 2, 1),
        ]
    return [
        *columns,
        ("RSS before MB", "values", "rss_idle", 1, 1 / MB),
        ("RSS most MB", "values", "rss_load", 1, 1 / MB),
    ]


def _median(row, group, measure):
    return row[group].get(measure, {}).get("median") if row else None


def _number(value, digits, factor=1):
    return BLANK if value is None else f"{value * factor:,.{digits}f}"


def _spread(value, digits, factor=1):
    """`median (least to greatest)`; the median alone when all are alike as they are written."""
    if not value:
        return BLANK
    median, least, most = (
        _number(value[name], digits, factor) for name in ("median", "min", "max")
    )
    return median if least == most else f"{median} ({least}–{most})"


def _markdown(header, lines):
    rule = ["---", *["---:"] * (len(header) - 1)]
    return ["| " + " | ".join(cells) + " |" for cells in (header, rule, *lines)]


def chart(document):
    """Bars of processor time divided by nginx's, a group for each scenario; lower is better."""
    groups = []
    for scenario in document["scenarios"]:
        rows = document["results"].get(scenario, {})
        bars = [
            (target, ratio, _median(rows[target], "values", "cpu_us"))
            for target in document["targets"]
            if (ratio := _median(rows.get(target), "to_nginx", "cpu_us")) is not None
        ]
        if bars:
            groups.append((scenario, bars))
    if not groups:
        return _svg(480, 60, [_text(16, 34, "No chart: nginx was not measured.")])

    left, width, bar, gap, head = 220, 810, 18, 26, 78
    longest = max(ratio for _, bars in groups for _, ratio, _ in bars)
    scale = (width - left - 130) / max(longest, 1.0)
    parts = [
        _text(16, 28, "Processor time for each request or event", 17, "bold"),
        _text(16, 50, "divided by nginx's in the same run; shorter is better", 13, colour="#666"),
    ]
    y = head
    for scenario, bars in groups:
        parts.append(_text(16, y + bar - 4, scenario, 14, "bold"))
        for target, ratio, cpu_us in bars:
            length = max(1.0, ratio * scale)
            label = f"{ratio:.2f}  ({cpu_us:,.1f} µs)"
            colour = COLOURS.get(target, "#999")
            parts.append(_text(left - 8, y + bar - 4, target, 13, anchor="end"))
            parts.append(
                f'<rect x="{left}" y="{y}" width="{length:.1f}" height="{bar - 3}" rx="2" '
                f'fill="{colour}"/>'
            )
            parts.append(_text(left + length + 6, y + bar - 5, label, 12, colour="#444"))
            y += bar
        y += gap
    line = left + scale
    parts.insert(
        2,
        f'<line x1="{line:.1f}" y1="{head - 8}" x2="{line:.1f}" y2="{y - gap + 6}" '
        f'stroke="#4a8f5b" stroke-dasharray="4 3"/>',
    )
    machine = document["machine"]
    options = document["options"]
    foot = (
        f"{document['made'][:10]}, {machine['processor']}, Linux {machine['kernel']}; "
        f"medians of {options['rounds']} rounds of {options['seconds']:g} s"
    )
    parts.append(_text(16, y + 4, foot, 11, colour="#888"))
    return _svg(width, y + 20, parts)


def _text(x, y, text, size=13, weight="normal", colour="#222", anchor="start"):
    return (
        f'<text x="{x:.1f}" y="{y}" font-size="{size}" font-weight="{weight}" fill="{colour}" '
        f'text-anchor="{anchor}" stroke="#fff" stroke-width="3" paint-order="stroke">'
        f"{escape(text)}</text>"
    )


def _svg(width, height, parts):
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}" font-family="system-ui, sans-serif">\n'
        f'<rect width="{width}" height="{height}" fill="#fff"/>\n{body}\n</svg>\n'
    )
