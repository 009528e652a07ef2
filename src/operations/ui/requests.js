// The panel of the last requests, newest first, each with its endpoint and the reason of the routing.

import { attr, byId, h, keyed, live, text } from "./dom.js";
import { failed, succeeded } from "./fleet.js";
import { bytes, clock, count, millis, rate, words } from "./format.js";

let frozen;

/** Builds the constant parts, once. */
export function start(refresh, latest) {
  const button = byId("requests-pause");
  button.addEventListener("click", () => {
    frozen = frozen ? undefined : (latest() ?? []);
    attr(button, "aria-pressed", String(Boolean(frozen)));
    text(button, frozen ? "Resume" : "Pause");
    refresh();
  });
}

/** Shows the newest state, or the one at which it was paused. */
export function render({ data, query, show }) {
  const all = frozen ?? data.requests?.requests ?? [];
  const found = named(all).filter((item) => wanted(item.request, query.toLowerCase(), show));
  found.sort((a, b) => (a.request.at < b.request.at ? 1 : a.request.at > b.request.at ? -1 : 0));
  keyed(byId("requests-rows"), found, ({ key }) => key, row);
  text(byId("requests-count"), found.length === all.length ? all.length : `${count(found.length)} of ${count(all.length)}`);
  const empty = byId("requests-empty");
  empty.hidden = found.length > 0 || !data.requests;
  text(empty, all.length === 0 ? "No requests yet." : "No request matches.");
}

/** Gives each request a key that is the same in every poll. */
function named(requests) {
  const seen = new Map();
  return requests.map((request) => {
    const base = request.id ?? [request.at, request.method, request.path, request.model, request.duration_ms].join(" ");
    const nth = seen.get(base) ?? 0;
    seen.set(base, nth + 1);
    return { key: `${base} ${nth}`, request };
  });
}

function wanted(request, query, show) {
  if (show === "failed" && succeeded(request)) return false;
  if (show === "retried" && !(request.retries > 0)) return false;
  if (!query) return true;
  const parts = [request.path, request.model, request.endpoint, request.outcome, request.strategy, request.decision, request.reason, String(request.status)];
  return parts.some((part) => part?.toLowerCase().includes(query));
}

function row() {
  const cell = (label, extra = "") => h("td", { "data-label": label, class: extra });
  const at = cell("Time", "time");
  const status = h("b", { class: "code" });
  const path = h("span", { class: "path" });
  const method = h("small", {});
  const model = cell("Model", "cut");
  const endpoint = cell("Endpoint", "cut");
  const reason = h("b", {});
  const how = h("small", {});
  const took = cell("Took", "num");
  const size = cell("Bytes", "num");
  const node = h("tr", {}, at, h("td", { class: "num", "data-label": "Status" }, status),
    h("td", { "data-label": "Request" }, method, " ", path), model, endpoint,
    h("td", { "data-label": "Routing" }, h("span", { class: "two" }, reason, how)), took, size);
  return live(node, ({ request }) => {
    text(at, clock(request.at));
    text(status, request.status || "–");
    attr(status, "data-tone", failed(request) ? "bad" : succeeded(request) ? "ok" : "warn");
    attr(status, "title", request.outcome);
    text(method, request.method);
    text(path, request.path);
    text(model, request.model || "–");
    attr(model, "title", request.model);
    text(endpoint, request.endpoint || "–");
    text(reason, words(request.reason) || "–");
    const tries = request.retries > 0 ? `${request.retries} ${request.retries === 1 ? "retry" : "retries"}` : "";
    const end = request.outcome === "cancelled" ? "client disconnected" : request.outcome === "failure" && request.status < 400 ? "incomplete" : "";
    const speed = request.tokens_per_second > 0 ? `${rate(request.tokens_per_second)} tok/s` : "";
    text(how, [request.strategy, request.decision, tries, end, speed].filter(Boolean).join(" · "));
    node.classList.toggle("retried", request.retries > 0);
    text(took, millis(request.duration_ms));
    attr(took, "title", request.first_byte_ms === undefined ? null : `first byte after ${millis(request.first_byte_ms)}`);
    text(size, bytes(request.bytes));
  });
}
