"""The result of `compare` as Markdown tables and as a chart, both made from raw.json alone."""

from html import escape

BLANK = "–"
COLOURS = {
    "relay": "#b8bec8",
    "relay-epoll": "#d5d9df",
    "nginx": "#4a8f5b",
    "haproxy": "#5b7fb8",
    "olla": "#d9623b",
    "olla-epoll": "#eda287",
    "olla-key": "#a8472c",
    "olla-keys": "#7d3320",
    "olla-least-connections": "#c9a53b",
}


def tables(document, scenarios):
    """A summary, and a table for each scenario."""
    machine = document["machine"]
    options = document["options"]
    out = [
        f"# Comparison, {document['made'][:10]}",
        "",
        f"{machine['processor'] or 'unknown processor'}, {machine['processors']} processors, "
        f"Linux {machine['kernel']}; medians of {options['rounds']} rounds of "
        f"{options['seconds']:g} s; one worker each.",
    ]
    out += ["", ", ".join(escape(text) for text in machine["versions"].values())]
    out += ["", "## Processor time of the target, microseconds", ""]
    out += _summary(document)
    for scenario in document["scenarios"]:
        counted = scenarios[scenario][2]
        rows = document["medians"].get(scenario, {})
        out += ["", f"## {scenario}", ""]
        out += _scenario(counted, rows, document["targets"])
    wrong = [
        f"{scenario}: {target}"
        for scenario, rows in document["medians"].items()
        for target, row in rows.items()
        if not row["ok"]
    ]
    if wrong:
        out += ["", f"**Not all responses were correct** (see raw.json): {', '.join(wrong)}."]
    return "\n".join(out) + "\n"


def _summary(document):
    header = ["", *document["scenarios"]]
    lines = []
    for target in document["targets"]:
        if target == "direct":
            continue
        cells = [target]
        for scenario in document["scenarios"]:
            row = document["medians"].get(scenario, {}).get(target, {})
            ratio = f" ({row['to_nginx']:.2f} ×)" if "to_nginx" in row else ""
            cells.append(_number(row.get("cpu_us"), 1) + ratio)
        lines.append(cells)
    return [*_markdown(header, lines), "", "In brackets: divided by nginx's."]


def _scenario(counted, rows, targets):
    streams = counted == "event"
    header = ["", f"{counted}s/s", f"CPU µs/{counted}", "× nginx", "CPU %", "p50 µs", "p99 µs"]
    header += ["first p50 µs", "first p99 µs"] if streams else ["added p50 µs"]
    header += ["RSS before MB", "RSS most MB"]
    header += ["KB/stream"] if streams else []
    lines = []
    for target in targets:
        row = rows.get(target, {})
        get = row.get
        cells = [
            target + ("" if get("ok") else " (!)"),
            _number(get("rate"), 0),
            _number(get("cpu_us"), 1),
            _number(get("to_nginx"), 2),
            _number(get("cpu_share"), 0, 100),
            _number(get("p50"), 0),
            _number(get("p99"), 0),
        ]
        if streams:
            cells += [_number(get("first_p50"), 0), _number(get("first_p99"), 0)]
        else:
            cells.append(_number(get("added_p50") if target != "direct" else None, 0))
        cells += [_number(get("rss_idle"), 1, 1 / 2**20), _number(get("rss_load"), 1, 1 / 2**20)]
        if streams:
            cells.append(_number(get("per_stream"), 1, 1 / 1024))
        lines.append(cells)
    return _markdown(header, lines)


def _number(value, digits, factor=1):
    return BLANK if value is None else f"{value * factor:,.{digits}f}"


def _markdown(header, lines):
    rule = ["---", *["---:"] * (len(header) - 1)]
    return ["| " + " | ".join(cells) + " |" for cells in (header, rule, *lines)]


def chart(document):
    """Bars of processor time divided by nginx's, a group for each scenario; lower is better."""
    groups = []
    for scenario in document["scenarios"]:
        rows = document["medians"].get(scenario, {})
        bars = [(t, rows[t]) for t in document["targets"] if "to_nginx" in rows.get(t, {})]
        if bars:
            groups.append((scenario, bars))
    if not groups:
        return _svg(480, 60, [_text(16, 34, "No chart: nginx was not measured.")])

    left, width, bar, gap, head = 190, 780, 18, 26, 78
    longest = max(row["to_nginx"] for _, bars in groups for _, row in bars)
    scale = (width - left - 130) / max(longest, 1.0)
    parts = [
        _text(16, 28, "Processor time for each request or event", 17, "bold"),
        _text(16, 50, "divided by nginx's in the same run; shorter is better", 13, colour="#666"),
    ]
    y = head
    for scenario, bars in groups:
        parts.append(_text(16, y + bar - 4, scenario, 14, "bold"))
        for target, row in bars:
            length = max(1.0, row["to_nginx"] * scale)
            label = f"{row['to_nginx']:.2f}  ({row['cpu_us']:,.1f} µs)"
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
        f"{document['made'][:10]}, {machine['processor']}, Linux {machine['kernel']}; one worker "
        f"each, medians of {options['rounds']} rounds of {options['seconds']:g} s"
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
