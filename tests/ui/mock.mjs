// A stand-in for the gateway: the dashboard's files and the routes it polls, over a made-up fleet
// that moves with the clock. `node mock.mjs [endpoints] [port]`, or `start()` from a test.

import { createServer } from "node:http";
import { readFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { join } from "node:path";

const UI = fileURLToPath(new URL("../../src/operations/ui/", import.meta.url));
const TYPES = { html: "text/html; charset=utf-8", js: "text/javascript; charset=utf-8", css: "text/css; charset=utf-8", svg: "image/svg+xml" };
const GUARD = {
  "X-Content-Type-Options": "nosniff",
  "X-Frame-Options": "DENY",
  "Referrer-Policy": "no-referrer",
  "Content-Security-Policy":
    "default-src 'self'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
};
export const KINDS = ["ollama", "vllm", "lm-studio", "llamacpp", "sglang"];
export const MODELS = [
  ["llama3.1:8b", "llama", "llm", "4.58 GB", "8.0b", "Q4_K_M"],
  ["llama3.3:70b", "llama", "llm", "39.60 GB", "70.6b", "Q4_K_M"],
  ["qwen2.5-coder:14b", "qwen", "llm", "8.37 GB", "14.8b", "Q4_K_M"],
  ["qwen3:32b", "qwen", "llm", "18.81 GB", "32.8b", "Q4_K_M"],
  ["gemma3:12b", "gemma", "vlm", "7.59 GB", "12.2b", "Q4_K_M"],
  ["mistralai/Mistral-Small-3.2-24B-Instruct-2506", "mistral", "llm", undefined, undefined, undefined],
  ["nomic-embed-text:latest", "nomic-bert", "embeddings", "261.60 MB", "137m", "F16"],
  ["deepseek-r1:32b", "deepseek", "llm", "18.49 GB", "32.8b", "Q4_K_M"],
  ["gpt-oss-120b", "gpt-oss", "llm", "60.88 GB", "117b", "MXFP4"],
];

/** A small generator with a seed: the same fleet at each start. */
export function random(seed) {
  return () => {
    seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
    return seed / 2 ** 32;
  };
}

export class Fleet {
  constructor({ count = 3, troubled = count > 10 } = {}) {
    const next = random(7);
    this.started = Date.now() - 9_412_000;
    this.run = new Date(this.started).toISOString();
    this.next = next;
    this.requests = [];
    this.total = 0;
    this.failures = 0;
    this.tokens = new Map();
    this.latencyKnown = true;
    this.endpoints = Array.from({ length: count }, (_, index) => this.endpoint(index, troubled));
    for (let second = 300; second > 0; second--) this.step(Date.now() - second * 1000);
    this.clock = setInterval(() => this.step(Date.now()), 1000);
    this.clock.unref();
  }

  endpoint(index, troubled) {
    const kind = KINDS[index % KINDS.length];
    const place = ["rack-a", "rack-b", "lab", "office", "edge"][Math.floor(index / KINDS.length) % 5];
    const statuses = { 7: "offline", 19: "unhealthy", 23: "busy", 41: "rate_limited", 52: "config_error" };
    return {
      name: `${kind}-${place}-${index + 1}`,
      id: (4_000_000 + index * 7_919).toString(36),
      type: kind,
      url: `http://10.0.${Math.floor(index / 20)}.${10 + (index % 20)}:${kind === "ollama" ? 11434 : 8000}`,
      priority: 100 - (index % 3) * 10,
      status: (troubled && statuses[index]) || "healthy",
      breaker: troubled && index === 30 ? "open" : "closed",
      models: MODELS.filter((_, at) => (at + index) % 3 !== 0 || index < 3).map(([name]) => name),
      speed: 300 + this.next() * 2500,
      slots: kind === "vllm" || kind === "llamacpp" ? 4 : null, queued: 0,
      requests: 0, failures: 0, inFlight: 0, lastUsed: new Map(), used: new Map(),
    };
  }

  step(at) {
    const up = this.endpoints.filter((endpoint) => endpoint.status === "healthy" || endpoint.status === "busy");
    const wave = 2.2 + Math.sin(at / 60_000) + this.next() * 1.4;
    const amount = up.length === 0 ? 1 : Math.round(wave * Math.min(6, Math.sqrt(this.endpoints.length)));
    for (let nth = 0; nth < amount; nth++) this.request(at + nth * 10, up);
    for (const endpoint of this.endpoints) {
      endpoint.inFlight = up.includes(endpoint) ? Math.max(0, Math.round(this.next() * 5 - 1)) : 0;
    }
  }

  request(at, up) {
    const [model] = MODELS[Math.floor(this.next() ** 2 * MODELS.length)];
    const endpoint = up[Math.floor(this.next() * up.length)];
    const luck = this.next();
    const entry = {
      at: new Date(at).toISOString(), method: "POST", path: "/olla/openai/v1/chat/completions", model,
      endpoint: endpoint?.name ?? "", status: 200, duration_ms: Math.round((endpoint?.speed ?? 1) * (0.5 + this.next() * 2)),
      strategy: "strict", decision: "routed", reason: "model_found", retries: 0, bytes: Math.round(900 + this.next() * 60_000),
    };
    if (!endpoint) Object.assign(entry, { status: 503, decision: "rejected", reason: "model_unavailable", duration_ms: 0, bytes: 131 });
    else if (luck < 0.02) Object.assign(entry, { status: 404, endpoint: "", model: "gpt-4o", decision: "rejected", reason: "model_not_found", duration_ms: 0, bytes: 122 });
    else if (luck < 0.03) Object.assign(entry, { status: 502, retries: 2 });
    else if (luck < 0.06) Object.assign(entry, { retries: 1 });
    else if (luck < 0.2) Object.assign(entry, { strategy: "alias", reason: 'alias "best" resolved to 4 endpoint(s)' });
    this.requests.push(entry);
    if (this.requests.length > 200) this.requests.shift();
    this.count(entry, endpoint);
  }

  count(entry, endpoint) {
    this.total += 1;
    const bad = entry.status >= 500;
    if (bad) this.failures += 1;
    if (!endpoint || entry.endpoint === "") return;
    endpoint.requests += 1;
    if (bad) endpoint.failures += 1;
    endpoint.lastUsed.set(entry.model, Date.parse(entry.at));
    endpoint.used.set(entry.model, (endpoint.used.get(entry.model) ?? 0) + 1);
    const usage = this.tokens.get(entry.model) ?? { requests: 0, failures: 0, prompt: 0, completion: 0 };
    usage.requests += 1;
    usage.failures += bad ? 1 : 0;
    usage.prompt += Math.round(80 + this.next() * 900);
    usage.completion += Math.round(40 + this.next() * 400);
    this.tokens.set(entry.model, usage);
  }

  get routable() {
    return this.endpoints.filter((endpoint) => ["healthy", "busy"].includes(endpoint.status)).length;
  }
}

const percent = (good, all) => (all === 0 ? "N/A" : good === all ? "100%" : `${((100 * good) / all).toFixed(1)}%`);
const ago = (at) => `${Math.floor((Date.now() - at) / 1000)}s ago`;

const routes = {
  "status": (fleet) => {
    const share = fleet.routable / Math.max(1, fleet.endpoints.length);
    return {
      proxy: { engine: "olla", profile: "auto", balancer: "least-connections" },
      security: { status: "normal", blocked_ips: 1, violations: { rate_limits: 14, size_limits: 2 } },
      system: {
        status: share < 0.5 ? "critical" : share < 0.8 ? "degraded" : "healthy", endpoints_up: `${fleet.routable}/${fleet.endpoints.length}`,
        success_rate: percent(fleet.total - fleet.failures, fleet.total), avg_latency: "1.4s", total_traffic: "1.21 GB", uptime: "2h 36m",
        start_time: fleet.run, version: "0.1.0", commit: "294af7d0c2", active_connections: fleet.endpoints.reduce((sum, e) => sum + e.inFlight, 0),
        security_violations: 16, total_requests: fleet.total, total_failures: fleet.failures, has_traffic: fleet.total > 0,
      },
      endpoints: fleet.endpoints.map((e) => ({ id: e.id, name: e.name, url: e.url, status: e.status, priority: e.priority, connections: e.inFlight, requests: e.requests, traffic: "41.30 MB", issues: e.status === "offline" ? "consecutive failures, unavailable" : "" })),
    };
  },
  "status/endpoints": (fleet) => ({
    total_count: fleet.endpoints.length, healthy_count: fleet.routable, routable_count: fleet.routable,
    endpoints: fleet.endpoints.map((e) => ({
      id: e.id, name: e.name, type: e.type, status: e.status, priority: e.priority, url: e.url, model_count: e.models.length,
      request_count: e.requests, success_rate: percent(e.requests - e.failures, e.requests), min_latency_ms: 41, max_latency_ms: Math.round(e.speed * 4),
      avg_latency_ms: Math.round(e.speed), active_connections: e.inFlight,
      slots: e.slots, running: Math.min(e.inFlight, e.slots ?? e.inFlight), queued: e.queued, models_warm: warm(e), health_check_at: new Date(Date.now() - 1800).toISOString(),
      next_check_at: new Date(Date.now() + 3200).toISOString(), response_time: "3ms", last_model_sync_at: new Date(Date.now() - 48_000).toISOString(), breaker: { state: e.breaker, opened_at: null, retry_at: null },
    })),
  }),
  "status/models": (fleet) => {
    const items = MODELS.map(([name, family, type, size, params, quant]) => {
      const hosts = fleet.endpoints.filter((e) => e.models.includes(name));
      return { name, family, type, size, params, quant, endpoints: hosts.map((e) => e.name), endpoint_ids: hosts.map((e) => e.id), last_seen_at: new Date(Date.now() - 48_000).toISOString(), aliases: name === "llama3.1:8b" ? ["llama3.1:latest"] : undefined };
    });
    const groups = [...new Set(items.map((item) => item.family))].sort();
    return {
      total_models: items.length,
      model_groups: groups.map((family) => ({ family, models: items.filter((item) => item.family === family) })),
    };
  },
  "stats/models": (fleet) => {
    const models = [...fleet.tokens].map(([name, u]) => ({
      name, total_requests: u.requests, successful_requests: u.requests - u.failures, failed_requests: u.failures, success_rate: percent(u.requests - u.failures, u.requests),
      p95_latency: "3.2s", p99_latency: "5.0s", prompt_tokens: u.prompt, completion_tokens: u.completion, total_tokens: u.prompt + u.completion, tokens_per_second: 18 + name.length,
      endpoint_breakdown: Object.fromEntries(fleet.endpoints.filter((e) => e.used.has(name)).map((e) => [e.name, { endpoint_name: e.name, request_count: e.used.get(name), last_used: ago(e.lastUsed.get(name)) }])),
    }));
    const sum = (key) => models.reduce((total, model) => total + model[key], 0);
    return { models, endpoints: {}, summary: { total_models: models.length, total_requests: sum("total_requests"), total_prompt_tokens: sum("prompt_tokens"), total_completion_tokens: sum("completion_tokens") } };
  },
  "stats/sticky": () => ({ enabled: true, active_sessions: 143, insertions: 391, hits: 5120, misses: 402, evictions: 248, max_sessions: 10_000, idle_ttl_seconds: 600 }),
  "stats/latency": (fleet) => fleet.latencyKnown ? {
    scheduling: { waiting: fleet.endpoints.reduce((sum, e) => sum + e.queued, 0), prompt_tokens: 40_000, hit_tokens: 30_100 },
    endpoints: fleet.endpoints.map((e) => ({ name: e.name, ...percentiles(e.requests > 0 ? e.speed : undefined), in_flight: e.inFlight })),
    models: [...fleet.tokens.keys()].map((name) => ({ name, ...percentiles(500 + name.length * 90), in_flight: 0 })),
  } : undefined,
  "stats/requests": (fleet) => fleet.latencyKnown ? { requests: fleet.requests } : undefined,
};

/** Ollama and llama.cpp say which models are in memory. */
function warm(endpoint) {
  return endpoint.type === "ollama" || endpoint.type === "llamacpp" ? endpoint.models.slice(0, 2) : undefined;
}

function percentiles(base) {
  if (base === undefined) return {};
  const [p50, p95, p99] = [1, 2.1, 3.3].map((factor) => Math.round(base * factor));
  const [f50, f95, f99] = [0.12, 0.3, 0.5].map((factor) => Math.round(base * factor));
  return { p50_ms: p50, p95_ms: p95, p99_ms: p99, ttft_p50_ms: f50, ttft_p95_ms: f95, ttft_p99_ms: f99 };
}

const CONDITIONAL = new Set(["status", "status/endpoints", "status/models"]);

async function answer(request, response, fleet, seen) {
  const { pathname } = new URL(request.url, "http://mock");
  const route = pathname.replace("/internal/", "");
  if (routes[route]) {
    const body = routes[route](fleet);
    if (!body) return send(response, 404, "application/json", '{"error":{"message":"not found","type":"not_found","code":"NOT_FOUND"}}');
    const tag = `W/"${hash(JSON.stringify(body).replace(/"[a-z_]+_at":"[^"]*"/g, ""))}"`;
    seen.push({ route, conditional: request.headers["if-none-match"] });
    if (CONDITIONAL.has(route)) {
      response.setHeader("ETag", tag);
      if (request.headers["if-none-match"] === tag) return response.writeHead(304).end();
    }
    return send(response, 200, "application/json", JSON.stringify({ timestamp: new Date().toISOString(), ...body }));
  }
  if (!pathname.startsWith("/internal/ui/")) return send(response, 404, "text/plain", "no");
  for (const [name, value] of Object.entries(GUARD)) response.setHeader(name, value);
  const asset = /^\/internal\/ui\/assets\/([a-z]+\.[a-z]+)$/.exec(pathname)?.[1];
  if (pathname.startsWith("/internal/ui/assets/") && !asset) return send(response, 404, "text/plain", "no");
  const file = asset ?? "index.html";
  try {
    send(response, 200, TYPES[file.split(".").at(-1)], await readFile(join(UI, file)));
  } catch {
    send(response, 404, "text/plain", "no");
  }
}

function send(response, status, type, body) {
  response.writeHead(status, { "Content-Type": type }).end(body);
}

function hash(text) {
  let state = 0x811c9dc5;
  for (let at = 0; at < text.length; at++) state = Math.imul(state ^ text.charCodeAt(at), 0x01000193) >>> 0;
  return state.toString(36);
}

/** Serves a fleet; `close()` cuts everything, `listen(port)` opens the same port again. */
export async function start(options = {}) {
  const mock = { fleet: new Fleet(options), seen: [], server: undefined, port: options.port ?? 0 };
  mock.listen = () => new Promise((resolve) => {
    mock.server = createServer((request, response) => answer(request, response, mock.fleet, mock.seen));
    mock.server.listen(mock.port, "127.0.0.1", () => {
      mock.port = mock.server.address().port;
      resolve(`http://127.0.0.1:${mock.port}`);
    });
  });
  mock.close = () => new Promise((resolve) => {
    mock.server.close(resolve);
    mock.server.closeAllConnections();
  });
  mock.url = await mock.listen();
  return mock;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const mock = await start({ count: Number(process.argv[2] ?? 12), port: Number(process.argv[3] ?? 0) });
  console.log(`${mock.url}/internal/ui/`);
}
