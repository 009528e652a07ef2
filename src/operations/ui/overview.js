// The overview panel.

import { attr, byId, h, keyed, live, name as setName, prop, text } from "./dom.js";
import { lineChart } from "./chart.js";
import { attention, errorKinds, prefixShare } from "./fleet.js";
import { ago, bytes, count, isNumber, millis, parseLatency, rate, span } from "./format.js";

/** With at least this many endpoints, the fleet is shown in one-line cells. */
const COMPACT_FROM = 40;
const RANKS = 6;

const charts = {};
const tiles = new Map();
let slowBy = "endpoints";

/** Builds the constant parts, once. */
export function start(refresh) {
  charts.requests = lineChart({
    label: "Requests per second",
    format: rate,
    series: [{ key: "requests", name: "all", tone: "accent" }, { key: "failures", name: "failed", tone: "bad" }],
  });
  charts.tokens = lineChart({
    label: "Tokens per second",
    format: rate,
    series: [{ key: "completion", name: "generated", tone: "teal" }, { key: "prompt", name: "prompt", tone: "muted" }],
  });
  byId("chart-requests").append(charts.requests);
  byId("chart-tokens").append(charts.tokens);
  for (const name of ["Fleet", "Requests/s", "Tokens/s", "In flight", "Queue", "Prefix hits", "Success", "Latency p95", "First token p95"]) {
    const tile = { value: h("b", {}, "–"), note: h("small", {}, "\u00a0") };
    tile.node = h("div", { class: "tile" }, h("span", {}, name), tile.value, tile.note);
    tiles.set(name, tile);
    byId("tiles").append(tile.node);
  }
  for (const button of document.querySelectorAll("#slow-card button")) {
    button.addEventListener("click", () => {
      slowBy = button.dataset.by;
      for (const each of document.querySelectorAll("#slow-card button")) {
        attr(each, "aria-pressed", String(each === button));
      }
      refresh();
    });
  }
}

/** Shows the newest state. */
export function render(view) {
  showTiles(view);
  charts.requests.refresh({ samples: view.history.requests.samples, now: Date.now() });
  charts.tokens.refresh({ samples: view.history.tokens.samples, now: Date.now() });
  showFleet(view);
  showSlowest(view);
  showBusiest(view);
  showErrors(view);
  showFacts(view);
}

function tile(name, value, note, tone) {
  const { node, value: figure, note: small } = tiles.get(name);
  text(figure, value);
  setName(small, note || "\u00a0");
  attr(node, "data-tone", tone);
}

function showTiles({ data, fleet, history }) {
  const system = data.status?.system;
  const tones = { healthy: "ok", degraded: "warn", critical: "bad" };
  const up = fleet.filter((endpoint) => endpoint.routable).length;
  tile("Fleet", system ? `${up}/${fleet.length}` : "–", system?.status, tones[system?.status]);
  tile("Requests/s", rate(history.requests.newest?.requests), `${count(system?.total_requests)} in all`);
  const usage = data.usage?.summary;
  tile("Tokens/s", rate(history.tokens.newest?.completion), isNumber(usage?.total_completion_tokens) ? `${count(usage.total_completion_tokens)} generated` : "");
  // Both values come from one route, so that they are of the same time.
  const working = fleet.filter((endpoint) => endpoint.inFlight > 0).length;
  const inFlight = fleet.reduce((sum, endpoint) => sum + endpoint.inFlight, 0);
  tile("In flight", system ? count(inFlight) : "–", system ? `at ${working} ${working === 1 ? "endpoint" : "endpoints"}` : "");
  const scheduling = data.latency?.scheduling;
  const waited = fleet.filter((endpoint) => endpoint.queued > 0).length;
  tile("Queue", count(scheduling?.waiting), waited > 0 ? `for ${waited} ${waited === 1 ? "endpoint" : "endpoints"}` : "", scheduling?.waiting > 0 ? "warn" : undefined);
  const share = prefixShare(data.latency);
  tile("Prefix hits", isNumber(share) ? `${Math.round(share)}%` : "–", isNumber(share) ? `of ${count(scheduling.prompt_tokens)} tokens` : "");
  const failures = system?.total_failures ?? 0;
  tile("Success", system?.success_rate ?? "–", `${count(failures)} failed`, failures > 0 && parseFloat(system.success_rate) < 95 ? "bad" : undefined);
  const slowest = worst(fleet, "p95_ms");
  const mean = parseLatency(system?.avg_latency);
  tile("Latency p95", millis(slowest?.value), slowest ? `worst: ${slowest.name}` : `mean ${millis(mean)}`);
  const first = worst(fleet, "ttft_p95_ms");
  tile("First token p95", millis(first?.value), first ? `worst: ${first.name}` : "");
}

function worst(fleet, key) {
  let found;
  for (const endpoint of fleet) {
    const value = endpoint.timing[key];
    if (isNumber(value) && value > 0 && !(found?.value >= value)) found = { value, name: endpoint.name };
  }
  return found;
}

function showFleet({ data, fleet }) {
  const troubled = attention(fleet);
  const rest = fleet.filter((endpoint) => endpoint.tone === "ok");
  const note = troubled.length === 0 ? (fleet.length > 0 ? "all healthy" : "") : `${troubled.length} ${troubled.length === 1 ? "needs" : "need"} attention`;
  text(byId("fleet-note"), note);
  const list = byId("fleet");
  list.classList.toggle("compact", fleet.length >= COMPACT_FROM);
  const peak = Math.max(4, ...fleet.map((endpoint) => endpoint.inFlight));
  keyed(list, [...troubled, ...rest].map((endpoint) => ({ endpoint, peak })), ({ endpoint }) => endpoint.id, cell);
  byId("fleet-empty").hidden = !data.endpoints || fleet.length > 0;
}

function cell({ endpoint }) {
  const icon = h("i", { class: "state", "aria-hidden": "true" });
  const name = h("b", {});
  const flight = h("span", { class: "flight" });
  const note = h("small", {});
  const link = h("a", { href: `#endpoints/${encodeURIComponent(endpoint.id)}` }, icon, name, flight, note, h("u", { class: "load", "aria-hidden": "true" }));
  return live(h("li", {}, link), ({ endpoint: now, peak }) => {
    setName(name, now.name);
    text(flight, now.inFlight > 0 ? now.inFlight : "");
    const doing = now.requests > 0 ? `${count(now.requests)} requests` : `${now.modelCount} models`;
    text(note, now.why[0] ?? doing);
    attr(link, "data-tone", now.tone);
    const whole = [now.name, now.status, ...now.why, `${now.inFlight} in flight`].join(" · ");
    attr(link, "title", whole);
    attr(link, "aria-label", whole);
    prop(link, "--load", Math.min(1, now.inFlight / peak).toFixed(3));
  });
}

function showSlowest({ data, fleet, models }) {
  byId("slow-card").hidden = !data.latency;
  const timed = slowBy === "endpoints"
    ? fleet.map(({ id, name, timing: t }) => ({ key: id, href: `#endpoints/${encodeURIComponent(id)}`, name, p50: t.p50_ms, p95: t.p95_ms, p99: t.p99_ms, ttft: t.ttft_p95_ms }))
    : models.map(({ name, p50, p95, p99, ttft95 }) => ({ key: name, href: `#models?q=${encodeURIComponent(name)}`, name, p50, p95, p99, ttft: ttft95 }));
  const shown = timed.filter((item) => item.p95 > 0).sort((a, b) => b.p95 - a.p95).slice(0, RANKS + 2);
  const top = Math.max(1, ...shown.map((item) => item.p99 ?? item.p95));
  keyed(byId("slow"), shown.map((item) => ({ ...item, top })), (item) => `${slowBy} ${item.key}`, slowBar);
  byId("slow-empty").hidden = shown.length > 0;
}

function slowBar(item) {
  const marks = ["p50", "p95", "p99", "ttft"].map((kind) => h("i", { class: `mark ${kind}` }));
  const track = h("span", { class: "track", "aria-hidden": "true" }, h("u", {}), marks);
  const value = h("b", {});
  const link = h("a", { href: item.href, "aria-label": item.name });
  setName(link, item.name);
  const node = h("li", {}, link, track, value);
  return live(node, (now) => {
    const at = (ms) => (isNumber(ms) ? Math.sqrt(ms / now.top).toFixed(4) : "-1");
    const [p50, p95, p99, ttft] = marks;
    for (const [mark, ms] of [[p50, now.p50], [p95, now.p95], [p99, now.p99], [ttft, now.ttft]]) {
      prop(mark, "--at", at(ms));
      mark.hidden = !isNumber(ms);
    }
    prop(track, "--from", at(now.p50 ?? now.p95));
    prop(track, "--to", at(now.p99 ?? now.p95));
    text(value, millis(now.p95));
    attr(node, "title", `${now.name}: p50 ${millis(now.p50)}, p95 ${millis(now.p95)}, p99 ${millis(now.p99)}, first token p95 ${millis(now.ttft)}`);
  });
}

function showBusiest({ models }) {
  const shown = models.filter((model) => model.requests > 0).sort((a, b) => b.requests - a.requests || a.name.localeCompare(b.name)).slice(0, RANKS);
  const top = Math.max(1, ...shown.map((model) => model.requests));
  ranks("busy", shown.map((model) => ({
    key: model.name, name: model.name, href: `#models?q=${encodeURIComponent(model.name)}`,
    value: count(model.requests), note: isNumber(model.speed) && model.speed > 0 ? `${rate(model.speed)} tok/s` : "", share: model.requests / top,
  })));
}

function showErrors({ data, now }) {
  const requests = data.requests?.requests;
  const kinds = errorKinds(requests).slice(0, RANKS);
  const top = Math.max(1, ...kinds.map((kind) => kind.count));
  text(byId("errors-note"), requests ? `in the last ${requests.length} requests` : "");
  byId("errors").hidden = !requests;
  ranks("errors", kinds.map((kind) => ({
    key: kind.kind, name: kind.kind, href: "#requests?show=failed", value: count(kind.count),
    note: ago(kind.at, now), share: kind.count / top, tone: kind.bad ? "bad" : "warn",
  })));
  byId("errors-empty").hidden = !requests || kinds.length > 0;
  const violations = data.status?.security?.violations;
  facts("security", [
    ["Failed since start", count(data.status?.system?.total_failures)],
    ["Rate limited", count(violations?.rate_limits)],
    ["Body too large", count(violations?.size_limits)],
    ["Rate-limited clients", count(data.status?.security?.blocked_ips)],
  ]);
}

function ranks(id, items) {
  keyed(byId(id), items, (item) => item.key, (item) => {
    const [value, note] = [h("b", {}), h("small", {})];
    const node = h("li", {}, h("a", { href: item.href, class: "cut", title: item.name }, item.name), note, value);
    return live(node, (now) => {
      text(value, now.value);
      text(note, now.note);
      attr(node, "data-tone", now.tone);
      prop(node, "--share", now.share.toFixed(3));
    });
  });
  byId(`${id}-empty`).hidden = items.length > 0;
}

function showFacts({ data, now }) {
  const { status, sticky } = data;
  const looks = (sticky?.hits ?? 0) + (sticky?.misses ?? 0);
  byId("sticky-card").hidden = !sticky;
  facts("sticky", !sticky ? [] : !sticky.enabled ? [["State", "off"]] : [
    ["Sessions", `${count(sticky.active_sessions)} of ${count(sticky.max_sessions)}`],
    ["Hit rate", looks > 0 ? `${((100 * sticky.hits) / looks).toFixed(1)}%` : "–"],
    ["Hits, misses", `${count(sticky.hits)}, ${count(sticky.misses)}`],
    ["Moved", count(sticky.insertions)],
    ["Evicted", count(sticky.evictions)],
    ["Idle timeout", span(sticky.idle_ttl_seconds * 1000)],
  ]);
  const system = status?.system;
  const started = Date.parse(system?.start_time ?? "");
  facts("gateway", [
    ["Version", [system?.version, system?.commit && `(${system.commit.slice(0, 9)})`].filter(Boolean).join(" ") || "–"],
    ["Uptime", Number.isNaN(started) ? (system?.uptime ?? "–") : span(now - started)],
    ["Engine", status?.proxy?.engine ?? "–"],
    ["Balancer", status?.proxy?.balancer ?? "–"],
    ["Profile", status?.proxy?.profile ?? "–"],
    ["Traffic", system?.total_traffic ?? bytes(undefined)],
  ]);
}

function facts(id, rows) {
  keyed(byId(id), rows, ([name]) => name, ([name]) => {
    const value = h("dd", {});
    return live(h("div", {}, h("dt", {}, name), value), ([, now]) => text(value, now));
  });
}
