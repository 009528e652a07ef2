// The panel of all endpoints: a table that sorts and filters, each row opening into its details.

import { attr, bodies, byId, h, keyed, live, name as setName, text } from "./dom.js";
import { ago, count, millis, until } from "./format.js";

const open = new Set();
let order = { by: undefined, down: false };
let refresh = () => {};

const STATUS_ORDER = { ok: 0, warn: 1, idle: 2, bad: 3 };
const SORTS = {
  name: (e) => e.name,
  status: (e) => STATUS_ORDER[e.tone],
  running: (e) => e.running ?? e.inFlight,
  queued: (e) => e.queued ?? -1,
  warm: (e) => e.warm?.length ?? -1,
  requests: (e) => e.requests,
  success: (e) => e.success ?? 101,
  avg: (e) => e.avg_latency_ms ?? -1,
  p50: (e) => e.timing.p50_ms ?? -1,
  p95: (e) => e.timing.p95_ms ?? -1,
  p99: (e) => e.timing.p99_ms ?? -1,
  ttft50: (e) => e.timing.ttft_p50_ms ?? -1,
  ttft95: (e) => e.timing.ttft_p95_ms ?? -1,
  ttft99: (e) => e.timing.ttft_p99_ms ?? -1,
  models: (e) => e.modelCount,
};

/** Builds the constant parts, once. */
export function start(onChange) {
  refresh = onChange;
  for (const head of document.querySelectorAll("#endpoints-table th")) {
    const by = head.dataset.sort;
    const button = h("button", { type: "button", onclick: () => sort(by) }, ...head.childNodes);
    head.append(button);
  }
}

function sort(by) {
  const first = by !== "name";
  if (order.by !== by) order = { by, down: first };
  else if (order.down === first) order = { by, down: !first };
  else order = { by: undefined, down: false };
  refresh();
}

/** Opens the details of one endpoint. */
export function reveal(id) {
  open.add(id);
  refresh();
  const body = byId(`endpoint-${id}`);
  if (!body) return false;
  body.scrollIntoView({ block: "center" });
  body.querySelector("button").focus({ preventScroll: true });
  return true;
}

/** Shows the newest state. */
export function render({ data, fleet, now, query, show }) {
  const table = byId("endpoints-table");
  table.classList.toggle("without-latency", !data.latency);
  const found = fleet.filter((endpoint) => wanted(endpoint, query.toLowerCase(), show));
  if (order.by) {
    const value = SORTS[order.by];
    const sign = order.down ? -1 : 1;
    found.sort((a, b) => sign * compare(value(a), value(b)) || a.name.localeCompare(b.name));
  }
  for (const head of table.querySelectorAll("th")) {
    const chosen = head.dataset.sort === order.by;
    attr(head, "aria-sort", chosen ? (order.down ? "descending" : "ascending") : null);
  }
  keyed(bodies(table), found.map((endpoint) => ({ endpoint, now })), ({ endpoint }) => endpoint.id, row);
  text(byId("endpoints-count"), found.length === fleet.length ? fleet.length : `${found.length} of ${fleet.length}`);
  const empty = byId("endpoints-empty");
  empty.hidden = found.length > 0 || !data.endpoints;
  text(empty, fleet.length === 0 ? "No endpoint is configured." : "No endpoint matches.");
}

const compare = (a, b) => (typeof a === "string" ? a.localeCompare(b) : a - b);

function wanted(endpoint, query, show) {
  if (show === "attention" && endpoint.tone === "ok") return false;
  if (show === "busy" && endpoint.inFlight === 0) return false;
  if (!query) return true;
  const text = [endpoint.id, endpoint.name, endpoint.type, endpoint.url, endpoint.status, ...endpoint.models];
  return text.some((part) => part?.toLowerCase().includes(query));
}

function row({ endpoint: { id } }) {
  const name = h("b", {});
  const type = h("small", {});
  const button = h("button", { type: "button", class: "opener", "aria-controls": `details-${id}` },
    h("i", { class: "caret", "aria-hidden": "true" }), h("span", { class: "two" }, name, type));
  const status = h("b", {});
  const why = h("small", {});
  const state = h("td", { "data-label": "Status", class: "status" },
    h("i", { class: "state", "aria-hidden": "true" }), h("span", { class: "two" }, status, why));
  const cells = figures();
  const main = h("tr", {}, h("th", { scope: "row" }, button), state, cells.map((cell) => cell.node));
  const details = h("td", { colspan: 15, id: `details-${id}`, class: "details" });
  const more = h("tr", { hidden: true }, details);
  const node = h("tbody", { id: `endpoint-${id}` }, main, more);
  button.addEventListener("click", () => {
    if (!open.delete(id)) open.add(id);
    refresh();
  });
  return live(node, ({ endpoint, now }) => {
    setName(name, endpoint.name);
    text(type, endpoint.type);
    text(status, endpoint.status.replaceAll("_", " "));
    text(why, endpoint.why.join(", "));
    attr(node, "data-tone", endpoint.tone);
    for (const cell of cells) text(cell.node, cell.value(endpoint));
    attr(button, "aria-expanded", String(open.has(id)));
    more.hidden = !open.has(id);
    if (!more.hidden) describe(details, endpoint, now);
  });
}

function figures() {
  const columns = [
    ["Running", "", running],
    ["Queue", "", (e) => count(e.queued)],
    ["Requests", "", (e) => count(e.requests)],
    ["Success", "", (e) => (e.requests > 0 ? e.success_rate : "–")],
    ["Mean", " avg", (e) => millis(e.avg_latency_ms)],
    ["p50", " lat first", (e) => millis(e.timing.p50_ms)],
    ["p95", " lat", (e) => millis(e.timing.p95_ms)],
    ["p99", " lat", (e) => millis(e.timing.p99_ms)],
    ["First token p50", " lat first", (e) => millis(e.timing.ttft_p50_ms)],
    ["First token p95", " lat", (e) => millis(e.timing.ttft_p95_ms)],
    ["First token p99", " lat", (e) => millis(e.timing.ttft_p99_ms)],
    ["Warm", "", (e) => count(e.warm?.length)],
    ["Models", "", (e) => count(e.modelCount)],
  ];
  return columns.map(([label, extra, value]) => ({ node: h("td", { class: `num${extra}`, "data-label": label }), value }));
}

/** Requests that hold a slot, of how many; without a limit their number alone. */
function running({ running: taken, slots }) {
  return slots ? `${count(taken)}/${count(slots)}` : count(taken);
}

/** What failed, where, and for how long. */
function lastError(last, now) {
  const row = last.count > 1 ? `, ${last.count} times since ${ago(last.since, now)}` : "";
  return `${last.message} (${last.url}), ${ago(last.at, now)}${row}`;
}

function describe(cell, endpoint, now) {
  const rows = [
    ["URL", endpoint.url],
    ["Priority", endpoint.priority],
    ["In flight", count(endpoint.inFlight)],
    ...(endpoint.warm ? [["In memory", endpoint.warm.join(", ") || "none"]] : []),
    ...(endpoint.breaker ? [["Breaker", endpoint.breaker]] : []),
    ["Checked", endpoint.health_check_at ? `${ago(endpoint.health_check_at, now)}, took ${endpoint.response_time ?? "0ms"}` : "never"],
    ["Next check", until(endpoint.next_check_at, now)],
    ["Models listed", ago(endpoint.last_model_sync_at, now)],
    ["Min, mean, max", [endpoint.min_latency_ms, endpoint.avg_latency_ms, endpoint.max_latency_ms].map(millis).join(" · ")],
    ["Traffic", endpoint.traffic ?? "–"],
    ...(endpoint.last_error ? [["Last error", lastError(endpoint.last_error, now)]] : []),
    ["Issues", endpoint.why.join(", ") || "none"],
  ];
  cell.facts ??= cell.appendChild(h("dl", { class: "facts" }));
  keyed(cell.facts, rows, ([name]) => name, ([name]) => {
    const value = h("dd", {});
    return live(h("div", {}, h("dt", {}, name), value), ([, next]) => text(value, next));
  });
  cell.chips ??= cell.appendChild(h("ul", { class: "chips", "aria-label": "Models" }));
  keyed(cell.chips, endpoint.models, (model) => model, (model) =>
    h("li", {}, h("a", { class: "chip", href: `#models?q=${encodeURIComponent(model)}` }, model)));
  cell.link ??= cell.appendChild(h("a", { class: "more", href: `#requests?q=${encodeURIComponent(endpoint.name)}` }, "Last requests"));
}
