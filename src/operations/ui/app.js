// The page as a whole: polls, keeps the panel in the URL's fragment, and redraws the visible panel.

import { attr, byId, text } from "./dom.js";
import { endpoints, families } from "./fleet.js";
import { clock } from "./format.js";
import { History } from "./history.js";
import { Source } from "./poll.js";
import * as overviewPanel from "./overview.js";
import * as endpointsPanel from "./endpoints.js";
import * as modelsPanel from "./models.js";
import * as requestsPanel from "./requests.js";

const PANELS = { overview: overviewPanel, endpoints: endpointsPanel, models: modelsPanel, requests: requestsPanel };
const TITLES = { overview: "Overview", endpoints: "Endpoints", models: "Models", requests: "Requests" };
/** How often the age of the data is updated while polling fails. */
const WATCH_MS = 1000;

const history = { requests: new History("requests"), tokens: new History("tokens") };
const sources = {
  status: new Source("status", 5_000, onStatus),
  endpoints: new Source("status/endpoints", 5_000, changed),
  models: new Source("status/models?detailed=true&group=family", 15_000, changed),
  usage: new Source("stats/models?include_endpoints=true&include_summary=true", 5_000, onUsage),
  latency: new Source("stats/latency", 5_000, changed),
  requests: new Source("stats/requests", 5_000, changed),
  sticky: new Source("stats/sticky", 15_000, changed),
};
const place = { panel: "overview", item: "", query: "", show: "all" };
let pendingItem = "";

let failing = false;

function onStatus(source) {
  // The gateway is back: routes with a longer interval are polled at once.
  if (failing && !source.error) {
    for (const other of Object.values(sources)) if (other.error) other.start();
  }
  failing = Boolean(source.error);
  const system = source.data?.system;
  if (source.error) history.requests.gap(Date.now());
  else if (system) {
    const counters = { requests: system.total_requests, failures: system.total_failures };
    history.requests.add(Date.now(), system.start_time, counters);
  }
  changed();
}

// Tokens come from another route, which is polled at other times; their rate uses those times.
function onUsage(source) {
  const totals = source.data?.summary;
  if (source.error) history.tokens.gap(Date.now());
  else if (totals) {
    const counters = { prompt: totals.total_prompt_tokens, completion: totals.total_completion_tokens };
    history.tokens.add(Date.now(), sources.status.data?.system?.start_time, counters);
  }
  changed();
}

let scheduled = false;

/** Redraws once a frame, whatever the number of responses. */
function changed() {
  if (scheduled) return;
  scheduled = true;
  requestAnimationFrame(() => {
    scheduled = false;
    draw();
  });
}

function draw() {
  const data = Object.fromEntries(Object.entries(sources).map(([name, source]) => [name, source.data]));
  const groups = families(data);
  const view = {
    data,
    history,
    fleet: endpoints(data),
    families: groups,
    models: groups.flatMap((group) => group.models),
    now: Date.now() + sources.endpoints.clockOffset,
    query: place.query,
    show: place.show,
  };
  PANELS[place.panel].render(view);
  showHeader(view);
  if (pendingItem && data.endpoints) {
    const id = pendingItem;
    pendingItem = "";
    const byName = view.fleet.find((endpoint) => endpoint.id === id || endpoint.name === id);
    if (byName) endpointsPanel.reveal(byName.id);
  }
}

function showHeader({ data, fleet }) {
  const troubled = fleet.filter((endpoint) => !endpoint.routable).length;
  const badge = byId("nav-endpoints");
  text(badge, troubled > 0 ? troubled : "");
  attr(badge, "title", troubled > 0 ? `${troubled} not routable` : null);
  text(byId("nav-models"), "");
  document.querySelector('nav [data-panel="requests"]').hidden = sources.requests.missing;
  const system = data.status?.system;
  const lead = system && system.status !== "healthy" ? `${system.status} · ` : "";
  document.title = `${lead}${TITLES[place.panel]} · Olla`;
  showFreshness();
}

function showFreshness() {
  const main = sources.status;
  const stale = main.stale;
  const slow = Object.values(sources).find((source) => source.error);
  document.documentElement.classList.toggle("is-stale", stale);
  attr(byId("live"), "data-tone", stale ? "bad" : slow ? "warn" : main.okAt ? "ok" : "idle");
  text(byId("live-text"), stale ? "stale" : slow ? "retrying" : main.okAt ? "live" : "connecting");
  const notice = byId("notice");
  notice.hidden = !stale;
  if (!stale) return;
  const since = main.okAt ? `The figures are from ${clock(main.okAt)}.` : "";
  text(notice, `The gateway does not answer (${main.error ?? "no response"}). ${since}`);
}

function readPlace() {
  const [path, options = ""] = location.hash.replace(/^#\/?/, "").split("?", 2);
  const [panel, item = ""] = path.split("/", 2);
  const fromPath = location.pathname.split("/").filter(Boolean).at(-1);
  const parameters = new URLSearchParams(options);
  place.panel = [panel, fromPath].find((name) => name in PANELS) ?? "overview";
  place.item = decode(item);
  place.query = parameters.get("q") ?? "";
  place.show = parameters.get("show") ?? "all";
  showPlace();
}

function decode(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

function showPlace() {
  for (const name of Object.keys(PANELS)) {
    byId(name).hidden = name !== place.panel;
    attr(document.querySelector(`nav [data-panel="${name}"]`), "aria-current", name === place.panel ? "page" : null);
  }
  const filter = byId(`${place.panel}-filter`);
  if (filter && filter.value !== place.query) filter.value = place.query;
  const show = byId(`${place.panel}-show`);
  if (show) show.value = [...show.options].some((option) => option.value === place.show) ? place.show : "all";
  place.show = show?.value ?? "all";
  if (place.panel === "endpoints" && place.item) pendingItem = place.item;
  else scrollTo(0, 0);
  changed();
}

/** Keeps filter and selection in the fragment, without a new history entry. */
function writePlace() {
  const parameters = new URLSearchParams();
  if (place.query) parameters.set("q", place.query);
  if (place.show !== "all") parameters.set("show", place.show);
  const options = parameters.size > 0 ? `?${parameters}` : "";
  window.history.replaceState(null, "", `#${place.panel}${options}`);
  changed();
}

function listenToFilters() {
  for (const name of Object.keys(PANELS)) {
    byId(`${name}-filter`)?.addEventListener("input", (event) => {
      place.query = event.target.value.trim();
      writePlace();
    });
    byId(`${name}-show`)?.addEventListener("change", (event) => {
      place.show = event.target.value;
      writePlace();
    });
  }
}

function listenToTheme() {
  const picker = byId("theme");
  const root = document.documentElement;
  picker.value = root.dataset.theme ?? "auto";
  picker.addEventListener("change", () => {
    if (picker.value === "auto") delete root.dataset.theme;
    else root.dataset.theme = picker.value;
    try {
      localStorage.setItem("olla-theme", picker.value);
    } catch {
      // Without storage the choice lasts as long as the page.
    }
  });
}

for (const line of Object.values(history)) line.restore(Date.now());
overviewPanel.start(changed);
endpointsPanel.start(draw);
modelsPanel.start(changed);
requestsPanel.start(changed, () => sources.requests.data?.requests);
listenToFilters();
listenToTheme();
window.addEventListener("hashchange", readPlace);
window.addEventListener("pagehide", () => {
  for (const line of Object.values(history)) line.save();
});
document.addEventListener("visibilitychange", () => {
  const wake = document.hidden ? "schedule" : "start";
  for (const source of Object.values(sources)) source[wake]();
});
setInterval(showFreshness, WATCH_MS);
readPlace();
for (const source of Object.values(sources)) source.start();

// Without keys there is nothing to log out of, and no button.
byId("logout")?.addEventListener("click", async () => {
  await fetch("/internal/ui/logout", { method: "POST", headers: { "X-Olla-Dashboard": "1" } });
  location.replace("/internal/ui/login");
});
