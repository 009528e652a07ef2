// The real gateway in front of stub servers: configured, started on a free port, stopped by its id.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { rmSync } from "node:fs";
import { mkdtemp, open, readFile, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { fileURLToPath } from "node:url";

const BINARY = process.env.OLLA_BIN ?? fileURLToPath(new URL("../../target/debug/olla", import.meta.url));
/** Much more than a start takes, for busy machines. */
const PATIENCE_MS = 60_000;

/** Calls `look` until it returns a value. */
export async function until(what, look) {
  const limit = Date.now() + PATIENCE_MS;
  for (;;) {
    const found = await look();
    if (found) return found;
    if (Date.now() > limit) throw new Error(`waited ${PATIENCE_MS} ms in vain: ${what}`);
    await pause(20);
  }
}

async function freePort() {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address();
  server.close();
  await once(server, "close");
  return port;
}

const config = (port, backends) => `
[server]
host = "127.0.0.1"
port = ${port}
[server.rate_limits]
global_requests_per_minute = 0
per_ip_requests_per_minute = 0
[proxy.sticky_sessions]
enabled = true
[model_aliases]
best = ["llama3.3:70b", "gpt-oss-120b"]
[logging]
level = "warn"
${backends.map(({ name, kind, url }) => `
[[discovery.static.endpoints]]
name = "${name}"
type = "${kind}"
url = "${url}"
check_interval = "2s"
check_timeout = "1900ms"`).join("\n")}
`;

/** A gateway in front of these servers. */
export class Gateway {
  constructor(backends) {
    this.backends = backends;
    // The test may end without stopping the gateway.
    process.once("exit", () => {
      this.child?.kill("SIGKILL");
      if (this.folder) rmSync(this.folder, { recursive: true, force: true });
    });
  }

  get url() {
    return `http://127.0.0.1:${this.port}`;
  }

  /** Starts it, on the same port as before, and waits until it has checked all endpoints. */
  async start() {
    this.folder ??= await mkdtemp(join(tmpdir(), "olla-ui-"));
    this.port ??= await freePort();
    const file = join(this.folder, "olla.toml");
    await writeFile(file, config(this.port, this.backends));
    const log = await open(join(this.folder, "log"), "a");
    const variables = Object.entries(process.env).filter(([name]) => !name.startsWith("OLLA_"));
    this.child = spawn(BINARY, ["--config", file], { cwd: this.folder, env: Object.fromEntries(variables), stdio: ["ignore", log.fd, log.fd] });
    this.ended = once(this.child, "exit");
    await log.close();
    await until("the gateway", async () => {
      if (this.child.exitCode !== null) throw new Error(`the gateway has ended:\n${await readFile(join(this.folder, "log"), "utf8")}`);
      const endpoints = await this.endpoints().catch(() => []);
      return endpoints.length === this.backends.length && endpoints.every(({ status }) => status !== "unknown");
    });
  }

  /** The endpoints as the gateway reports them. */
  async endpoints() {
    const answer = await fetch(`${this.url}/internal/status/endpoints`);
    return (await answer.json()).endpoints;
  }

  /** Waits until the gateway reports an endpoint in this state. */
  async waitStatus(name, status) {
    await until(`${name} to be ${status}`, async () => (await this.endpoints()).find((one) => one.name === name)?.status === status);
  }

  /** Stops it as an operator would. */
  async stop() {
    this.child.kill("SIGTERM");
    const late = setTimeout(() => this.child.kill("SIGKILL"), 15_000);
    await this.ended;
    clearTimeout(late);
  }
}
