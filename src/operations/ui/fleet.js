// Combines the data of the routes: one record for each endpoint and each model. Pure functions; the
// data of a missing route or field is `undefined`.

import { isNumber, parseAgo, parseLatency, parsePercent } from "./format.js";

/** An endpoint that served a model within this time, and does not say more, probably has it in memory. */
export const WARM_MS = 5 * 60_000;

const ROUTABLE = new Set(["healthy", "busy", "warming"]);
const SEVERITY = { healthy: 0, warming: 1, busy: 2, unknown: 3, rate_limited: 4, config_error: 5, unhealthy: 6, offline: 7 };
const WHY = {
  offline: "cannot be reached",
  unhealthy: "responds to checks with an error",
  unknown: "not checked yet",
  config_error: "refuses the gateway's credentials",
  rate_limited: "rate limited (429)",
  busy: "its check took more than ten seconds",
  warming: "warming up",
};

/** The colour of a status. */
export function tone(endpoint) {
  if (!ROUTABLE.has(endpoint.status)) return endpoint.status === "unknown" ? "idle" : "bad";
  return endpoint.status !== "healthy" || endpoint.why.length > 0 ? "warn" : "ok";
}

/** Every endpoint in the order of the gateway. */
export function endpoints({ status, endpoints: listing, latency, models }) {
  const figures = byName(latency?.endpoints);
  const general = new Map((status?.endpoints ?? []).map((item) => [item.id, item]));
  const hosted = modelsByEndpoint(models);
  const items = listing?.endpoints ?? status?.endpoints ?? [];
  return items.map((item) => {
    const other = general.get(item.id) ?? {};
    const timing = figures.get(item.name) ?? {};
    const endpoint = {
      ...other,
      ...item,
      timing,
      requests: item.request_count ?? item.requests ?? 0,
      running: item.running,
      slots: item.slots,
      queued: item.queued,
      warm: item.models_warm,
      inFlight: timing.in_flight ?? item.active_connections ?? item.connections ?? 0,
      modelCount: item.model_count ?? item.models?.count ?? 0,
      success: parsePercent(item.success_rate),
      breaker: breaker(item.breaker),
      models: hosted.get(item.id) ?? [],
    };
    endpoint.why = reasons(endpoint, other.issues);
    endpoint.tone = tone(endpoint);
    endpoint.routable = ROUTABLE.has(item.status);
    return endpoint;
  });
}

function byName(items) {
  return new Map((items ?? []).map((item) => [item.name, item]));
}

function modelsByEndpoint(models) {
  const hosted = new Map();
  for (const model of allModels(models)) {
    for (const id of model.endpoint_ids ?? []) {
      if (!hosted.has(id)) hosted.set(id, []);
      hosted.get(id).push(model.name);
    }
  }
  return hosted;
}

/** The state of a circuit breaker; nothing for a closed one. */
function breaker(state) {
  const word = String(typeof state === "object" ? (state?.state ?? "") : (state ?? "")).toLowerCase();
  if (word === "" || word === "closed") return word;
  return word.includes("half") ? "half-open" : word;
}

function reasons(endpoint, issues) {
  const found = [];
  if (WHY[endpoint.status]) found.push(WHY[endpoint.status]);
  if (endpoint.breaker === "open") found.push("circuit breaker open");
  if (endpoint.breaker === "half-open") found.push("circuit breaker half-open");
  const last = endpoint.last_error;
  if (last) found.push(`${last.kind.replaceAll("_", " ")}: ${last.message}`);
  for (const issue of `${issues ?? ""}, ${endpoint.issues ?? ""}`.split(",").map((word) => word.trim())) {
    if (issue && issue !== "unavailable" && !found.includes(issue)) found.push(issue);
  }
  return found;
}

/** The share of the prompts' tokens that was believed to be cached, in percent. */
export function prefixShare(latency) {
  const { prompt_tokens: prompt, hit_tokens: hit } = latency?.scheduling ?? {};
  return prompt > 0 ? (100 * hit) / prompt : undefined;
}

/** The endpoints that need attention: worst status first, then by name. */
export function attention(list) {
  return list
    .filter((endpoint) => endpoint.tone !== "ok")
    .sort((a, b) => (SEVERITY[b.status] ?? 3) - (SEVERITY[a.status] ?? 3) || a.name.localeCompare(b.name));
}

function allModels(models) {
  if (models?.model_groups) return models.model_groups.flatMap((group) => group.models ?? []);
  return models?.recent_models ?? [];
}

/** Families with their models, each with its usage, timings and hosts. */
export function families({ models, usage, latency, endpoints: listing }) {
  const told = new Map((listing?.endpoints ?? []).map((item) => [item.name, item.models_warm?.map(plain)]));
  const used = byName(usage?.models);
  const timings = byName(latency?.models);
  const groups = models?.model_groups ?? [{ family: "unknown", models: models?.recent_models ?? [] }];
  const known = new Set();
  const result = groups.map((group) => ({
    family: group.family,
    models: (group.models ?? []).map((model) => {
      known.add(model.name);
      return describe(model, used.get(model.name), timings.get(model.name), told);
    }),
  }));
  const gone = (usage?.models ?? []).filter((model) => !known.has(model.name));
  if (models && gone.length > 0) {
    const items = gone.map((model) => describe({ name: model.name, gone: true }, model, timings.get(model.name), told));
    result.push({ family: "no longer listed", models: items });
  }
  return result.filter((group) => group.models.length > 0);
}

/** A name as the gateway compares names: without letter case and Ollama's default tag. */
const plain = (name) => name.toLowerCase().replace(/:latest$/, "");

function describe(model, use, timing, told) {
  const breakdown = use?.endpoint_breakdown ?? {};
  const hosts = (model.endpoints ?? []).map((name, index) => ({
    name,
    id: model.endpoint_ids?.[index],
    requests: breakdown[name]?.request_count,
    warm: told.get(name)?.includes(plain(model.name)) ?? parseAgo(breakdown[name]?.last_used) <= WARM_MS,
  }));
  return {
    ...model,
    hosts,
    use,
    requests: use?.total_requests ?? 0,
    tokens: use?.total_tokens ?? sum(use?.prompt_tokens, use?.completion_tokens),
    speed: use?.tokens_per_second,
    p50: timing?.p50_ms,
    p95: timing?.p95_ms ?? parseLatency(use?.p95_latency),
    p99: timing?.p99_ms ?? parseLatency(use?.p99_latency),
    ttft50: timing?.ttft_p50_ms,
    ttft95: timing?.ttft_p95_ms,
    ttft99: timing?.ttft_p99_ms,
  };
}

function sum(a, b) {
  return isNumber(a) || isNumber(b) ? (a ?? 0) + (b ?? 0) : undefined;
}

/** Whether a request counts as a failure in the statistics; one with a disconnected client does not. */
export function failed({ outcome, status }) {
  return outcome ? outcome === "failure" : !(status > 0 && status < 500);
}

/** Whether the response was complete. */
export function succeeded({ outcome, status }) {
  return (outcome === undefined || outcome === "success") && status >= 200 && status < 400;
}

/** Failed and refused requests among the last ones, by cause. */
export function errorKinds(requests) {
  const kinds = new Map();
  for (const request of requests ?? []) {
    if (succeeded(request)) continue;
    const kind = kindOf(request);
    const entry = kinds.get(kind) ?? { kind, count: 0, at: request.at, bad: failed(request) };
    entry.count += 1;
    if (Date.parse(request.at) > Date.parse(entry.at)) entry.at = request.at;
    kinds.set(kind, entry);
  }
  return [...kinds.values()].sort((a, b) => b.count - a.count || a.kind.localeCompare(b.kind));
}

const KINDS = {
  400: "bad request", 401: "not authorised", 403: "forbidden", 404: "not found", 405: "method not allowed",
  408: "client too slow", 413: "body too large", 429: "rate limited", 431: "head too large", 499: "client disconnected",
  500: "internal error", 501: "not supported", 502: "endpoint failed", 503: "no endpoint available", 504: "endpoint timeout",
};

function kindOf({ status, reason, decision, outcome }) {
  if (outcome === "cancelled") return "client disconnected";
  if (!status) return "no response";
  if (outcome === "failure" && status < 400) return "response incomplete";
  if (decision === "rejected" && reason) return `${status} ${reason.replaceAll("_", " ")}`;
  return `${status} ${KINDS[status] ?? "error"}`;
}
