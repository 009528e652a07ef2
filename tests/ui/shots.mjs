// Takes the pictures of docs/dashboard for `scripts/run pictures`: `node shots.mjs FOLDER`. Real
// gateways in front of few and of many stub servers, with clients; all pages run for the same time.

import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { fleet, traffic } from "./backends.mjs";
import { browser, open } from "./browser.mjs";
import { Gateway } from "./gateway.mjs";

/** The time after which lines fill the charts. */
const WATCH_MS = 115_000;
const SIZES = {
  "": { viewport: { width: 1360, height: 900 } },
  "-phone": { viewport: { width: 390, height: 844 }, deviceScaleFactor: 2 },
};
/** The part of a page that a picture shows, in pixels of the page. */
const HEIGHT_MAX = 1600;

const folder = process.argv[2];
await mkdir(folder, { recursive: true });
const chrome = await browser();
const clients = new AbortController();

async function stand(count, perSecond) {
  const backends = await fleet(count);
  const gateway = new Gateway(backends);
  await gateway.start();
  traffic(gateway.url, perSecond, clients.signal);
  const pages = [];
  for (const colorScheme of ["light", "dark"]) {
    for (const [size, options] of Object.entries(SIZES)) {
      const { page, complaints } = await open(chrome, gateway.url, "overview", { ...options, colorScheme });
      pages.push({ page, complaints, name: `${count}-${colorScheme}${size}` });
    }
  }
  return { gateway, pages };
}

const stands = [await stand(3, 3), await stand(60, 9)];
await pause(WATCH_MS);
for (const { page, name, complaints } of stands.flatMap(({ pages }) => pages)) {
  for (const complaint of complaints) console.error(`${name}: ${complaint}`);
  // A page in the background would not draw its charts.
  await page.bringToFront();
  const height = await page.evaluate(() => document.documentElement.scrollHeight);
  await page.setViewportSize({ ...page.viewportSize(), height: Math.min(height, HEIGHT_MAX) });
  await page.screenshot({ path: join(folder, `${name}.png`) });
}
clients.abort();
await Promise.all(stands.map(({ gateway }) => gateway.stop()));
await chrome.close();
process.exit(0);
