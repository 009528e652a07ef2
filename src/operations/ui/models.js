// The panel of all models, by family: their facts, endpoints and use.

import { attr, bodies, byId, h, keyed, live, text } from "./dom.js";
import { ago, count, millis, rate } from "./format.js";

const COLUMNS = [
  ["Size", (m) => m.size ?? "–"],
  ["Params", (m) => m.params ?? "–"],
  ["Quant", (m) => m.quant ?? "–"],
  ["Requests", (m) => count(m.requests)],
  ["Tokens", (m) => count(m.tokens)],
  ["Tok/s", (m) => (m.speed > 0 ? rate(m.speed) : "–")],
  ["p50", (m) => millis(m.p50)],
  ["p95", (m) => millis(m.p95)],
  ["p99", (m) => millis(m.p99)],
  ["First token p95", (m) => millis(m.ttft95)],
];

/** The number of hosts shown before the others are hidden. */
const HOSTS = 6;

const unfolded = new Set();
let refresh = () => {};

/** Builds the constant parts, once. */
export function start(onChange) {
  refresh = onChange;
  const heads = COLUMNS.map(([label]) => h("th", { class: "num", scope: "col" }, label));
  byId("models-heads").append(h("th", { scope: "col" }, "Model"), ...heads, h("th", { scope: "col", class: "where" }, "Where"));
}

/** Shows the newest state. */
export function render({ data, families, now, query }) {
  const wantedText = query.toLowerCase();
  const found = families
    .map(({ family, models }) => ({ family, models: models.filter((model) => wanted(model, family, wantedText)) }))
    .filter(({ models }) => models.length > 0);
  const total = families.reduce((sum, { models }) => sum + models.length, 0);
  const shown = found.reduce((sum, { models }) => sum + models.length, 0);
  text(byId("models-count"), shown === total ? total : `${shown} of ${total}`);
  keyed(bodies(byId("models-table")), found.map((group) => ({ ...group, now })), ({ family }) => family, section);
  const empty = byId("models-empty");
  empty.hidden = shown > 0 || !data.models;
  text(empty, total === 0 ? "No endpoint has listed a model yet." : "No model matches.");
}

function wanted(model, family, query) {
  if (!query) return true;
  const parts = [model.name, family, model.type, ...(model.aliases ?? []), ...(model.endpoints ?? [])];
  return parts.some((part) => part?.toLowerCase().includes(query));
}

function section({ family }) {
  const size = h("small", {});
  const head = h("tr", { class: "family" }, h("th", { colspan: COLUMNS.length + 2, scope: "rowgroup" }, family, " ", size));
  const body = h("tbody", {}, head);
  // The head row stays; the models follow it.
  const rows = {
    get firstChild() {
      return head.nextSibling;
    },
    insertBefore: (node, at) => body.insertBefore(node, at),
  };
  return live(body, ({ models, now }) => {
    text(size, models.length);
    keyed(rows, models.map((model) => ({ model, now })), ({ model }) => model.name, row);
  });
}

function row({ model: { name } }) {
  const note = h("small", {});
  const cells = COLUMNS.map(([label, value]) => ({ node: h("td", { class: "num", "data-label": label }), value }));
  const hosts = h("ul", { class: "chips" });
  const more = h("button", { type: "button", class: "fold" });
  more.addEventListener("click", () => {
    if (!unfolded.delete(name)) unfolded.add(name);
    refresh();
  });
  const node = h("tr", {},
    h("th", { scope: "row" }, h("span", { class: "two" }, h("b", {}, name), note)),
    cells.map((cell) => cell.node), h("td", { class: "where", "data-label": "Where" }, hosts, more));
  return live(node, ({ model, now }) => {
    const also = (model.aliases ?? []).length > 0 ? `also ${model.aliases.join(", ")}` : "";
    const seen = model.gone ? "no endpoint lists it now" : model.last_seen_at ? `seen ${ago(model.last_seen_at, now)}` : "";
    const kind = model.type && model.type !== "llm" ? model.type : "";
    text(note, [kind, also, seen].filter(Boolean).join(" · "));
    for (const cell of cells) text(cell.node, cell.value(model));
    const open = unfolded.has(name);
    const sorted = [...model.hosts].sort((a, b) => Number(b.warm) - Number(a.warm) || a.name.localeCompare(b.name));
    const shown = open ? sorted : sorted.slice(0, HOSTS);
    more.hidden = model.hosts.length <= HOSTS;
    const hidden = sorted.slice(HOSTS);
    const warm = hidden.filter((host) => host.warm).length;
    text(more, open ? "show fewer" : `+ ${hidden.length} more${warm > 0 ? `, ${warm} warm` : ""}`);
    attr(more, "aria-expanded", String(open));
    keyed(hosts, shown, (host) => host.id ?? host.name, chip);
  });
}

function chip({ id, name }) {
  const tally = h("small", {});
  const link = h("a", { class: "chip", href: `#endpoints/${encodeURIComponent(id ?? name)}` }, name, tally);
  return live(h("li", {}, link), (host) => {
    text(tally, host.requests > 0 ? count(host.requests) : "");
    link.classList.toggle("warm", host.warm);
    attr(link, "title", `${host.name}: ${host.warm ? "warm" : "cold"}, ${count(host.requests ?? 0)} requests for this model`);
  });
}
