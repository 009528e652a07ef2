// Samples of the counters, to show rates over time. Kept for the tab only.

const KEEP_MS = 15 * 60_000;
const STORE = "olla-history-";

/** Samples of rates, oldest first; a sample without values is a gap. */
export class History {
  constructor(name) {
    this.store = STORE + name;
    this.samples = [];
    this.last = undefined;
    this.run = undefined;
  }

  /** Adds the current counters; `run` changes when the gateway was restarted. */
  add(now, run, counters) {
    const before = this.last;
    if (run !== this.run || !before) {
      if (before) this.gap(now);
      this.run = run;
      this.last = { now, counters };
      return;
    }
    const seconds = (now - before.now) / 1000;
    if (seconds < 0.5) return;
    const sample = { t: now };
    for (const [name, value] of Object.entries(counters)) {
      const from = before.counters[name];
      if (value === undefined || from === undefined) continue;
      sample[name] = Math.max(0, value - from) / seconds;
    }
    this.samples.push(sample);
    this.last = { now, counters };
    this.forget(now);
  }

  /** Adds a gap up to now. */
  gap(now) {
    if (this.samples.at(-1)?.gap || this.samples.length === 0) return;
    this.samples.push({ t: now, gap: true });
  }

  /** The newest sample, unless the line is broken. */
  get newest() {
    const sample = this.samples.at(-1);
    return sample?.gap ? undefined : sample;
  }

  forget(now) {
    while (this.samples.length > 0 && now - this.samples[0].t > KEEP_MS) this.samples.shift();
  }

  /** Keeps the line over a reload of the page. */
  save() {
    try {
      const { samples, last, run } = this;
      sessionStorage.setItem(this.store, JSON.stringify({ samples, last, run }));
    } catch {
      // Without storage the chart starts empty; nothing else depends on it.
    }
  }

  /** Restores the samples that an earlier load of this tab saved. */
  restore(now) {
    try {
      const saved = JSON.parse(sessionStorage.getItem(this.store) ?? "null");
      if (!Array.isArray(saved?.samples) || !saved.last?.counters) return;
      this.samples = saved.samples;
      this.run = saved.run;
      this.last = saved.last;
      this.forget(now);
    } catch {
      this.samples = [];
    }
  }
}
