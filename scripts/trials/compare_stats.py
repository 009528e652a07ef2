"""What the samples of `compare` say: medians over the rounds, their spread, and ratios.

A ratio is made within each round, of two targets that were measured one after the other; what is
reported is the median of these ratios, not the ratio of two medians.
"""

import statistics

from trials.compare_rows import SCENARIOS

# Of these a ratio to nginx is made; less is better in all of them.
COMPARED = ("cpu_us", "added_p50", "p99", "p999", "first_p50", "each")
NOT_MEASURED = ("round", "report", "ok")


def spread(values):
    """Median, least and greatest of the values of all rounds; none without values."""
    values = [value for value in values if value is not None]
    if not values:
        return None
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


class Samples:
    """The samples, by scenario, target and round."""

    def __init__(self, samples):
        self.by_place = {}
        for sample in samples:
            place = (sample["scenario"], sample["target"])
            self.by_place.setdefault(place, {})[sample["round"]] = sample

    def of(self, scenario, target):
        return self.by_place.get((scenario, target), {})

    def value(self, scenario, target, number, measure):
        """A number of one round; None if it was not measured."""
        sample = self.of(scenario, target).get(number, {})
        if measure == "added_p50":
            direct = self.of(scenario, "direct").get(number, {})
            ours, bare = sample.get("p50"), direct.get("p50")
            return ours - bare if ours is not None and bare is not None else None
        found = sample.get(measure)
        return found if isinstance(found, (int, float)) else None

    def values(self, scenario, target, measure):
        rounds = self.of(scenario, target)
        return [self.value(scenario, target, number, measure) for number in rounds]

    def ratios(self, scenario, target, base, measure):
        """The ratio to another target in each round in which both were measured."""
        found = []
        for number in self.of(scenario, target):
            ours = self.value(scenario, target, number, measure)
            theirs = self.value(scenario, base, number, measure)
            if ours is not None and theirs is not None and theirs > 0:
                found.append(ours / theirs)
        return found


def results(samples):
    """For each scenario and target: whether all was correct, the numbers, and the ratios."""
    known = Samples(samples)
    found = {}
    for scenario, target in known.by_place:
        group = list(known.of(scenario, target).values())
        keys = {key for sample in group for key in sample} - {*NOT_MEASURED, "scenario", "target"}
        values = {key: spread(known.values(scenario, target, key)) for key in [*keys, "added_p50"]}
        ratios = {key: spread(known.ratios(scenario, target, "nginx", key)) for key in COMPARED}
        found.setdefault(scenario, {})[target] = {
            "ok": all(sample["ok"] for sample in group),
            "values": {key: value for key, value in values.items() if value},
            "to_nginx": {key: value for key, value in ratios.items() if value},
        }
    return found


# What is to be reached: text, scenario, measure, the base of the ratio if it is one, the bound if
# there is one, and the unit that a number without a base is divided by.
GOALS = (
    ("idle keep-alive connection, KB", "idle", "each", None, 3, 1024),
    ("idle keep-alive connection with TLS, KB", "tls-idle", "each", None, 6, 1024),
    ("open slow SSE stream, both sides, KB", "streams", "each", None, 10, 1024),
    ("open slow SSE stream with TLS, KB", "tls-streams", "each", None, 20, 1024),
    ("memory after the streams / before", "streams", "after_share", None, 1.3, 1),
    ("memory after the streams / before, with TLS", "tls-streams", "after_share", None, 1.3, 1),
    ("chat-64 / nginx, the goal is for olla-quiet", "chat-64", "cpu_us", "nginx", 0.85, 1),
    ("chat-1, added median latency / nginx", "chat-1", "added_p50", "nginx", 1.0, 1),
    ("SSE event / nginx", "sse", "cpu_us", "nginx", 0.85, 1),
    ("SSE, median first event / nginx", "sse", "first_p50", "nginx", 1.0, 1),
    ("SSE event of 100 KB / nginx", "sse-100k", "cpu_us", "nginx", None, 1),
    ("prompt of 100 KB / nginx", "prompt-100k", "cpu_us", "nginx", None, 1),
    ("prompt of 1 MB / nginx", "prompt-1m", "cpu_us", "nginx", None, 1),
    ("TLS chat / nginx", "tls-chat-64", "cpu_us", "nginx", 0.80, 1),
    ("TLS handshake with its request / nginx", "tls-handshake", "cpu_us", "nginx", 0.65, 1),
    ("chat-64 at a steady rate, p99 / nginx", "chat-64-steady", "p99", "nginx", 1.0, 1),
    ("chat-64 at a steady rate, p99.9 / nginx", "chat-64-steady", "p999", "nginx", 1.0, 1),
    ("chat-64 with two workers / nginx", "two-workers", "cpu_us", "nginx", None, 1),
)


def goals(samples, targets):
    """The goals whose scenarios were measured: text, bound, and the spread of each target."""
    known = Samples(samples)
    ours = [target for target in targets if target.startswith("olla")]
    found = []
    for text, scenario, measure, base, bound, unit in GOALS:
        by_target = {}
        for target in ours:
            if base:
                values = known.ratios(scenario, target, base, measure)
            else:
                values = known.values(scenario, target, measure)
                values = [value / unit for value in values if value is not None]
            by_target[target] = spread(values)
        if any(by_target.values()):
            found.append({"text": text, "bound": bound, "targets": by_target})
    return found


def drivers(samples, used):
    """The processor time of olla-epoll divided by olla's, a spread by scenario; empty unless the
    two have different drivers (`used`, by target)."""
    if used.get("olla") == used.get("olla-epoll"):
        return {}
    known = Samples(samples)
    names = [name for name, scenario in SCENARIOS.items() if not scenario.is_memory]
    found = {name: spread(known.ratios(name, "olla-epoll", "olla", "cpu_us")) for name in names}
    return {name: value for name, value in found.items() if value}
