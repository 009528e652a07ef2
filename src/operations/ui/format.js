// Numbers and instants for display.

const NOTHING = "–";

/** Whether a value is a finite number. */
export const isNumber = (value) => typeof value === "number" && Number.isFinite(value);

/** 1234 → 1,234; from 10,000 on 12.3k, 4.56M. */
export function count(value) {
  if (!isNumber(value)) return NOTHING;
  if (value < 10_000) return Math.round(value).toLocaleString("en");
  for (const [unit, size] of [["G", 1e9], ["M", 1e6], ["k", 1e3]]) {
    if (value >= size) return trim(value / size) + unit;
  }
  return String(value);
}

/** A rate: two digits below ten, one below a hundred, none above. */
export function rate(value) {
  if (!isNumber(value)) return NOTHING;
  if (value === 0) return "0";
  if (value < 9.995) return value.toFixed(value < 0.995 ? 2 : 1);
  return value < 99.5 ? value.toFixed(1) : count(value);
}

function trim(value) {
  return value >= 100 ? value.toFixed(0) : value >= 10 ? value.toFixed(1) : value.toFixed(2);
}

/** Milliseconds: 840 ms, 1.2 s, 12 s, 2m 5s. */
export function millis(value) {
  if (!isNumber(value)) return NOTHING;
  if (value < 1000) return `${Math.round(value)} ms`;
  if (value < 9950) return `${(value / 1000).toFixed(1)} s`;
  if (value < 59_500) return `${Math.round(value / 1000)} s`;
  const seconds = Math.round(value / 1000);
  return `${Math.floor(seconds / 60)}m ${seconds % 60}s`;
}

/** Bytes, base 1024, in the style of the status routes. */
export function bytes(value) {
  if (!isNumber(value)) return NOTHING;
  if (value < 1024) return `${value} B`;
  let unit = -1;
  while (value >= 1024 && unit < 5) {
    value /= 1024;
    unit += 1;
  }
  return `${trim(value)} ${["KB", "MB", "GB", "TB", "PB", "EB"][unit]}`;
}

/** A span in the two largest units: 3d 4h, 2h 5m, 4m 7s, 12s. */
export function span(ms) {
  if (!isNumber(ms)) return NOTHING;
  const s = Math.max(0, Math.floor(ms / 1000));
  const [d, hours, m] = [Math.floor(s / 86400), Math.floor(s / 3600) % 24, Math.floor(s / 60) % 60];
  if (d > 0) return `${d}d ${hours}h`;
  if (hours > 0) return `${hours}h ${m}m`;
  return m > 0 ? `${m}m ${s % 60}s` : `${s}s`;
}

/** How long ago an instant was, by the gateway's clock. */
export function ago(instant, now) {
  const at = Date.parse(instant ?? "");
  if (Number.isNaN(at)) return "never";
  const ms = now - at;
  return ms < 1000 ? "now" : `${short(ms)} ago`;
}

/** How long until an instant; past ones are due. */
export function until(instant, now) {
  const at = Date.parse(instant ?? "");
  if (Number.isNaN(at)) return NOTHING;
  return at <= now ? "now" : `in ${short(at - now)}`;
}

function short(ms) {
  const s = Math.floor(ms / 1000);
  if (s < 60) return `${s}s`;
  if (s < 3600) return `${Math.round(s / 60)}m`;
  return s < 86400 ? `${Math.round(s / 3600)}h` : `${Math.round(s / 86400)}d`;
}

/** "12s ago", "3m ago", "never" of the status routes, in milliseconds; never is Infinity. */
export function parseAgo(words) {
  const found = /^(\d+)\s*([smhd])\b/.exec(words ?? "");
  if (!found) return Infinity;
  return Number(found[1]) * { s: 1e3, m: 6e4, h: 36e5, d: 864e5 }[found[2]];
}

/** "12ms", "1.2s" of the status routes, in milliseconds. */
export function parseLatency(words) {
  const found = /^([\d.]+)\s*(ms|s)$/.exec(words ?? "");
  if (!found) return undefined;
  return Number(found[1]) * (found[2] === "s" ? 1000 : 1);
}

/** "66.7%" → 66.7. */
export function parsePercent(words) {
  const value = parseFloat(words);
  return Number.isFinite(value) ? value : undefined;
}

/** Wall-clock time of an instant, to the second. */
export function clock(instant) {
  const at = new Date(instant ?? NaN);
  if (Number.isNaN(at.getTime())) return NOTHING;
  return at.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false });
}

/** `model_found_no_refresh` → model found, no refresh. */
export function words(reason) {
  return (reason ?? "").replaceAll("_", " ");
}
