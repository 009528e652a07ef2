// Polls the status routes with conditional requests. Intervals vary, so that many open pages do not
// poll at the same time, and are longer while the page is hidden.

const JITTER = 0.12;
const HIDDEN_FACTOR = 6;
const STALE_INTERVALS = 3;
/** The polling interval of a route that this gateway does not have. */
const MISSING_RETRY_MS = 60_000;
/** The interval of unconditional requests: a 304 does not update the times of checks. */
const FULL_READ_MS = 30_000;
const TIMEOUT_MS = 10_000;

/** One route that is polled. */
export class Source {
  constructor(path, everyMs, onChange) {
    this.path = path;
    this.everyMs = everyMs;
    this.onChange = onChange;
    this.data = undefined;
    this.missing = false;
    this.error = undefined;
    this.okAt = undefined;
    this.startedAt = Date.now();
    this.clockOffset = 0;
    this.etag = undefined;
    this.fullAt = 0;
    this.timer = undefined;
    this.busy = false;
    this.paused = false;
  }

  /** Polls at once and then at the interval. */
  start() {
    clearTimeout(this.timer);
    if (!this.busy) this.read();
  }

  /** Whether three intervals have passed without a response. */
  get stale() {
    const since = this.okAt ?? this.startedAt;
    const interval = this.everyMs * (document.hidden ? HIDDEN_FACTOR : 1);
    return !this.missing && Date.now() - since > STALE_INTERVALS * interval;
  }

  async read() {
    this.busy = true;
    let changed = false;
    try {
      changed = await this.fetch();
      this.error = undefined;
    } catch (error) {
      this.error = error.name === "TimeoutError" ? "response timeout" : error.message;
    }
    this.busy = false;
    this.schedule();
    this.onChange(this, changed);
  }

  async fetch() {
    const conditional = this.etag && Date.now() - this.fullAt < FULL_READ_MS;
    const answer = await fetch(`/internal/${this.path}`, {
      headers: conditional ? { "If-None-Match": this.etag } : {},
      cache: "no-store",
      signal: AbortSignal.timeout(TIMEOUT_MS),
    });
    if (answer.status === 401) location.replace("/internal/ui/login");
    this.missing = answer.status === 404;
    if (answer.status === 304) {
      this.okAt = Date.now();
      return false;
    }
    if (this.missing) {
      this.data = undefined;
      return true;
    }
    if (!answer.ok) throw new Error(await refusal(answer));
    const data = await answer.json();
    this.data = data;
    this.etag = answer.headers.get("ETag") ?? undefined;
    this.okAt = this.fullAt = Date.now();
    const serverTime = Date.parse(data.timestamp ?? "");
    if (!Number.isNaN(serverTime)) this.clockOffset = serverTime - Date.now();
    return true;
  }

  schedule() {
    let wait = this.missing ? MISSING_RETRY_MS : this.everyMs;
    if (document.hidden) wait *= HIDDEN_FACTOR;
    wait *= 1 - JITTER + 2 * JITTER * Math.random();
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.read(), wait);
  }
}

async function refusal(answer) {
  try {
    return (await answer.json()).error.message;
  } catch {
    return `HTTP ${answer.status}`;
  }
}
