// Takes the pictures of docs/: `node shots.mjs FOLDER [URL]`. Without a URL, of the mock.

import { mkdir } from "node:fs/promises";
import { browser } from "./browser.mjs";
import { start } from "./mock.mjs";

const [folder, url] = process.argv.slice(2);
await mkdir(folder, { recursive: true });
const chrome = await browser();

async function shoot(name, { base, hash, theme = "dark", width = 1360, height = 900, full = false, wait = 9_000 }) {
  const page = await chrome.newPage({ viewport: { width, height }, colorScheme: theme, deviceScaleFactor: width < 500 ? 2 : 1 });
  page.on("console", (message) => message.type() === "error" && console.log(name, message.text()));
  page.on("pageerror", (error) => console.log(name, error.message));
  await page.goto(`${base}/internal/ui/#${hash}`);
  await page.waitForTimeout(wait);
  await page.screenshot({ path: `${folder}/${name}.png`, fullPage: full });
  await page.close();
}

if (url) {
  await Promise.all([
    shoot("dashboard", { base: url, hash: "overview", wait: 75_000 }),
    shoot("dashboard-light", { base: url, hash: "overview", theme: "light", wait: 75_000 }),
  ]);
} else {
  const [few, many] = await Promise.all([start({ count: 3 }), start({ count: 60 })]);
  const all = { full: true };
  await Promise.all([
    shoot("overview-3", { base: few.url, hash: "overview", wait: 24_000 }),
    shoot("overview-60", { base: many.url, hash: "overview", ...all, wait: 24_000 }),
    shoot("overview-60-light", { base: many.url, hash: "overview", theme: "light", ...all, wait: 24_000 }),
    shoot("endpoints-60", { base: many.url, hash: `endpoints/${many.fleet.endpoints[7].id}` }),
    shoot("models-60", { base: many.url, hash: "models", theme: "light" }),
    shoot("models-3", { base: few.url, hash: "models" }),
    shoot("requests-60", { base: many.url, hash: "requests" }),
    shoot("phone-overview-3", { base: few.url, hash: "overview", width: 390, height: 844, ...all }),
    shoot("phone-endpoints-60", { base: many.url, hash: "endpoints", width: 390, height: 844, theme: "light" }),
    shoot("phone-requests-60", { base: many.url, hash: "requests", width: 390, height: 844 }),
    shoot("phone-models-3", { base: few.url, hash: "models", width: 390, height: 844 }),
  ]);
  await Promise.all([few.close(), many.close()]);
}
await chrome.close();
process.exit(0);
