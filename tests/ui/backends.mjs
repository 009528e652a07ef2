// Stub LLM servers of several kinds and clients that use them, for the real gateway in tests and
// pictures. They report what a dashboard shows: models, tokens and health.

import { createServer } from "node:http";
import { setTimeout as pause } from "node:timers/promises";
import { KINDS, MODELS, random } from "./mock.mjs";

const PLACES = ["rack-a", "rack-b", "lab", "office", "edge"];
const UNITS = { MB: 2 ** 20, GB: 2 ** 30 };

/** One server. `status` is the response to health checks; `stop()` and `listen()` stop and restart it. */
export class Backend {
  constructor({ kind, name, models, slowness = 1, status = 200 }) {
    Object.assign(this, { kind, name, models, slowness, status, port: 0, server: undefined });
    this.next = random(name.length * 7_919 + models.length);
  }

  get url() {
    return `http://127.0.0.1:${this.port}`;
  }

  listen() {
    return new Promise((resolve, reject) => {
      this.server = createServer((request, response) => {
        // A client that disconnects is not an error of the server.
        this.answer(request, response).catch(() => response.destroy());
      });
      this.server.keepAliveTimeout = 30_000;
      this.server.once("error", reject);
      this.server.listen(this.port, "127.0.0.1", () => {
        this.port = this.server.address().port;
        resolve();
      });
    });
  }

  stop() {
    return new Promise((resolve) => {
      this.server.close(resolve);
      this.server.closeAllConnections();
    });
  }

  async answer(request, response) {
    const { pathname } = new URL(request.url, "http://stub");
    const listing = listings[pathname];
    const isCheck = request.headers["user-agent"]?.startsWith("olla-HealthChecker");
    if (isCheck) return send(response, this.status, {});
    if (listing) return send(response, 200, listing(this.models));
    let body = "";
    for await (const piece of request) body += piece;
    await this.generate(JSON.parse(body), response);
  }

  async generate({ model, stream, input }, response) {
    const prompt = 40 + Math.round(this.next() * 900);
    if (input) {
      await pause(20 * this.slowness);
      return send(response, 200, { object: "list", model, data: [], usage: { prompt_tokens: prompt, total_tokens: prompt } });
    }
    if (this.next() < 0.01) return send(response, 500, { error: { message: "out of memory" } });
    const tokens = 20 + Math.round(this.next() ** 2 * 180);
    const usage = { prompt_tokens: prompt, completion_tokens: tokens, total_tokens: prompt + tokens };
    // As llama.cpp reports them.
    const timings = { predicted_n: tokens, predicted_ms: tokens * 4 * this.slowness };
    await pause((60 + this.next() * 200) * this.slowness);
    const events = Math.ceil(tokens / 10);
    if (!stream) {
      await pause(events * 40 * this.slowness);
      const choice = { index: 0, finish_reason: "stop", message: { role: "assistant", content: "…" } };
      return send(response, 200, { id: "c", model, choices: [choice], usage, timings });
    }
    response.writeHead(200, { "Content-Type": "text/event-stream" });
    const event = (choices, more) => response.write(`data: ${JSON.stringify({ id: "c", model, choices, ...more })}\n\n`);
    for (let nth = 0; nth < events && !response.destroyed; nth++) {
      event([{ index: 0, delta: { content: "…" }, finish_reason: null }]);
      await pause(40 * this.slowness);
    }
    event([{ index: 0, delta: {}, finish_reason: "stop" }]);
    event([], { usage, timings });
    response.end("data: [DONE]\n\n");
  }
}

function send(response, status, body) {
  response.writeHead(status, { "Content-Type": "application/json" }).end(JSON.stringify(body));
}

function bytesOf(size) {
  const [number, unit] = size.split(" ");
  return Math.round(Number(number) * UNITS[unit]);
}

const listings = {
  "/api/tags": (models) => ({
    models: models.map(([name, family, , size = "4.00 GB", parameters = "", quantization = ""]) => ({
      name, model: name, modified_at: "2026-08-01T09:30:00Z", size: bytesOf(size), digest: name,
      details: { format: "gguf", family, families: [family], parameter_size: parameters.toUpperCase(), quantization_level: quantization },
    })),
  }),
  "/api/v0/models": (models) => ({
    object: "list",
    data: models.map(([name, family, type, , , quantization]) => ({ id: name, object: "model", type, arch: family, quantization, state: "loaded", max_context_length: 32_768 })),
  }),
  "/v1/models": (models) => ({ object: "list", data: models.map(([name]) => ({ id: name, object: "model", owned_by: "stub" })) }),
};

/** The given number of listening servers, the same at each call; of many servers some fail. */
export async function fleet(count) {
  const troubles = count > 10 ? { 7: 0, 19: 500, 41: 429, 52: 401 } : {};
  const next = random(7);
  const servers = Array.from({ length: count }, (_, index) => {
    const kind = KINDS[index % KINDS.length];
    const place = PLACES[Math.floor(index / KINDS.length) % PLACES.length];
    const models = MODELS.filter((_, at) => (at + index) % 3 !== 0);
    const slowness = 0.5 + next() * 2.5;
    return new Backend({ kind, name: `${kind}-${place}-${index + 1}`, models, slowness, status: troubles[index] ?? 200 });
  });
  await Promise.all(servers.map((server) => server.listen()));
  // One of them is stopped; its port is known.
  await Promise.all(servers.filter(({ status }) => status === 0).map((server) => server.stop()));
  return servers;
}

/** Clients that send about so many requests a second until `signal` is aborted. */
export async function traffic(url, perSecond, signal) {
  const next = random(11);
  const under = new Set();
  for (let nth = 0; !signal.aborted; nth++) {
    const wave = 0.75 + 0.35 * Math.sin(nth / (6 * perSecond)) + 0.3 * next();
    await pause(1000 / (perSecond * wave));
    const one = ask(url, next).catch(() => {}).finally(() => under.delete(one));
    under.add(one);
  }
  await Promise.all(under);
}

async function ask(url, next) {
  const [name, , type] = MODELS[Math.floor(next() ** 1.6 * MODELS.length)];
  const luck = next();
  const model = luck < 0.02 ? "gpt-4o" : luck < 0.12 ? "best" : name;
  const embeds = model === name && type === "embeddings";
  const path = embeds ? "embeddings" : "chat/completions";
  const what = embeds ? { input: "text" } : { stream: next() < 0.7, messages: [{ role: "user", content: `Question ${Math.floor(next() * 500)}` }] };
  // Some clients disconnect before the end.
  const signal = next() < 0.01 ? AbortSignal.timeout(300) : undefined;
  const answer = await fetch(`${url}/olla/openai/v1/${path}`, {
    method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ model, ...what }), signal,
  });
  await answer.text();
}
