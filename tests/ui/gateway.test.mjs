// The dashboard of the real gateway, in a real browser, in front of stub servers.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { fleet, traffic } from "./backends.mjs";
import { browser, open } from "./browser.mjs";
import { Gateway } from "./gateway.mjs";

/** The time limit for one or two polls on a busy machine. */
const PATIENCE = { timeout: 60_000 };

let chrome, backends, gateway;
const clients = new AbortController();
before(async () => {
  backends = await fleet(3);
  gateway = new Gateway(backends);
  await gateway.start();
  chrome = await browser();
  traffic(gateway.url, 4, clients.signal);
});
after(async () => {
  clients.abort();
  await chrome?.close();
  await gateway?.stop();
  await Promise.all(backends.map((backend) => backend.stop()));
});

/** Opens the page for the duration of a test. */
async function show(t, hash, options) {
  const shown = await open(chrome, gateway.url, hash, options);
  t.after(() => shown.page.close());
  return shown;
}

test("every panel loads without complaints, in both themes", async (t) => {
  for (const panel of ["overview", "endpoints", "models", "requests"]) {
    for (const colorScheme of ["light", "dark"]) {
      const { page, complaints } = await show(t, panel, { colorScheme });
      await page.locator(`#${panel}`).waitFor();
      const wanted = { overview: "#fleet a", endpoints: "#endpoints-table tbody tr", models: "#models-table a.chip", requests: "#requests-rows tr" };
      await page.locator(wanted[panel]).first().waitFor(PATIENCE);
      assert.deepEqual(complaints, []);
    }
  }
});

test("a backend going down and coming back shows within two intervals", async (t) => {
  const { page, complaints } = await show(t, "overview");
  const backend = backends[1];
  const cell = page.locator("#fleet a", { hasText: backend.name });
  const shows = (tone) => cell.and(page.locator(`[data-tone="${tone}"]`)).waitFor(PATIENCE);
  // Counted in polls, not in seconds: those depend on the machine.
  let polls = 0;
  page.on("response", (answer) => (polls += answer.url().endsWith("/internal/status/endpoints")));
  await shows("ok");
  await backend.stop();
  await gateway.waitStatus(backend.name, "offline");
  polls = 0;
  await shows("bad");
  assert.ok(polls <= 2, `shown after ${polls} polls`);
  assert.match(await cell.textContent(), /cannot be reached/);
  await backend.listen();
  await gateway.waitStatus(backend.name, "healthy");
  polls = 0;
  // Requests that failed with it can have longer effects: on its breaker and its success rate.
  await cell.and(page.locator('[data-tone="ok"], [data-tone="warn"]')).waitFor(PATIENCE);
  assert.ok(polls <= 2, `shown after ${polls} polls`);
  assert.doesNotMatch(await cell.textContent(), /cannot be reached/);
  assert.deepEqual(complaints, []);
});

test("a restart of the gateway is survived", async (t) => {
  const { page } = await show(t, "overview");
  const requests = page.locator("#tiles small", { hasText: "in all" });
  await gateway.stop();
  await page.locator("#live-text", { hasText: /retrying|stale/ }).waitFor(PATIENCE);
  await gateway.start();
  await page.locator("#live-text", { hasText: "live" }).waitFor(PATIENCE);
  assert.ok(await page.locator("#notice").isHidden());
  // The data is that of the new process and is updated.
  const before = await requests.textContent();
  await page.waitForFunction(
    ([old]) => [...document.querySelectorAll("#tiles small")].some(({ textContent }) => textContent.includes("in all") && textContent !== old),
    [before], PATIENCE);
  assert.equal(await page.locator("#fleet a").count(), backends.length);
});
