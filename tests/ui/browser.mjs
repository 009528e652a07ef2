// The machine's own Chromium, and the dashboard in it; playwright-core comes from the folder that
// UI_TOOLS names (scripts/run ui sets it).

import { createRequire } from "node:module";

const { chromium } = createRequire(`${process.env.UI_TOOLS}/`)("playwright-core");

export const browser = () =>
  chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args: ["--no-sandbox"] });

/** Opens the page and waits until it is live. Errors of the browser are in `complaints`. */
export async function open(chrome, base, hash = "overview", options = {}) {
  const page = await chrome.newPage({ viewport: { width: 1280, height: 900 }, ...options });
  const complaints = [];
  page.on("console", (message) => message.type() === "error" && complaints.push(message.text()));
  page.on("pageerror", (error) => complaints.push(error.message));
  page.on("request", (request) => {
    if (!request.url().startsWith(base) && !request.url().startsWith("data:")) complaints.push(`foreign request ${request.url()}`);
  });
  await page.goto(`${base}/internal/ui/#${hash}`);
  await page.locator("#live-text", { hasText: "live" }).waitFor();
  return { page, complaints };
}
