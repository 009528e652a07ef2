// The dashboard in a real browser, against the mock or, with URL=…, against a running gateway.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { browser, open as openIn } from "./browser.mjs";
import { start } from "./mock.mjs";

const real = process.env.URL_UNDER_TEST;
/** The time limit for a few polls on a busy machine. */
const PATIENCE = { timeout: 60_000 };
const PHONE = { width: 360, height: 740 };

let chrome;
before(async () => (chrome = await browser()));
after(() => chrome.close());

/** Opens the page for the duration of a test. */
async function open(t, base, hash, options) {
  const shown = await openIn(chrome, base, hash, options);
  t.after(() => shown.page.close());
  return shown;
}

async function mocked(t, options) {
  const mock = await start(options);
  t.after(() => mock.close().catch(() => {}));
  return mock;
}

const base = async (t, options) => real ?? (await mocked(t, options)).url;
/** The requests for a route that the mock has seen. */
const polls = (mock, route) => mock.seen.filter((request) => request.route === route);
const quiet = (complaints) => assert.deepEqual(complaints, []);

for (const panel of ["overview", "endpoints", "models", "requests"]) {
  test(`${panel} loads without complaints and fits a phone`, async (t) => {
    const url = await base(t, { count: 60 });
    for (const colorScheme of ["light", "dark"]) {
      const { page, complaints } = await open(t, url, panel, { viewport: PHONE, colorScheme });
      await page.locator(`#${panel}`).waitFor();
      const [wide, room] = await page.evaluate(() => [document.documentElement.scrollWidth, innerWidth]);
      assert.ok(wide <= room, `${wide} px of content in ${room} px`);
      await page.evaluate(() => new Promise(requestAnimationFrame));
      assert.equal(await page.evaluate(() => scrollY), 0, "its top is below the head");
      quiet(complaints);
    }
  });
}

test("themes follow the system until one is chosen, and the choice stays", async (t) => {
  const url = await base(t, { count: 3 });
  const { page, complaints } = await open(t, url, "overview", { colorScheme: "dark" });
  const background = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
  const dark = await background();
  await page.emulateMedia({ colorScheme: "light" });
  const light = await background();
  assert.notEqual(dark, light);
  await page.selectOption("#theme", "dark");
  assert.equal(await background(), dark);
  await page.reload();
  assert.equal(await background(), dark);
  quiet(complaints);
});

test("panels are kept in the fragment and reached by keyboard", async (t) => {
  const url = await base(t, { count: 3 });
  const { page, complaints } = await open(t, url, "");
  const reached = [];
  for (let step = 0; step < 6; step++) {
    await page.keyboard.press("Tab");
    reached.push(await page.evaluate(() => document.activeElement.getAttribute("href")));
  }
  assert.deepEqual(reached, ["#main", "#overview", "#overview", "#endpoints", "#models", "#requests"]);
  await page.keyboard.press("Shift+Tab");
  await page.keyboard.press("Enter");
  await page.locator("#models").waitFor();
  assert.equal(new URL(page.url()).hash, "#models");
  await page.goBack();
  await page.locator("#overview").waitFor();
  await page.goto(`${url}/internal/ui/endpoints`);
  await page.locator("#endpoints").waitFor();
  quiet(complaints);
});

test("a host of a model leads to its endpoint", { skip: real }, async (t) => {
  const { url } = await mocked(t, { count: 3 });
  const { page, complaints } = await open(t, url, "models");
  const chip = page.locator("#models-table a.chip").first();
  const id = (await chip.getAttribute("href")).split("/")[1];
  await chip.focus();
  await page.keyboard.press("Enter");
  await page.locator(`#details-${id}`).waitFor();
  assert.equal(await page.evaluate(() => document.activeElement.getAttribute("aria-controls")), `details-${id}`);
  quiet(complaints);
});

test("an endpoint going down and coming back shows within two intervals", { skip: real }, async (t) => {
  const mock = await mocked(t, { count: 3 });
  const { fleet } = mock;
  const { page, complaints } = await open(t, mock.url);
  const cell = page.locator("#fleet a", { hasText: fleet.endpoints[1].name });
  await cell.and(page.locator('[data-tone="ok"]')).waitFor();
  // Counted in polls, not in seconds: those depend on the machine.
  const shownByTheSecond = async (tone) => {
    const before = polls(mock, "status/endpoints").length;
    await cell.and(page.locator(`[data-tone="${tone}"]`)).waitFor(PATIENCE);
    const after = polls(mock, "status/endpoints").length - before;
    assert.ok(after <= 2, `shown after ${after} polls`);
  };
  fleet.endpoints[1].status = "offline";
  await shownByTheSecond("bad");
  assert.match(await cell.textContent(), /cannot be reached/);
  fleet.endpoints[1].status = "healthy";
  await shownByTheSecond("ok");
  quiet(complaints);
});

test("a restart of the gateway is survived, and old data is marked", { skip: real }, async (t) => {
  const mock = await mocked(t, { count: 3 });
  const { page } = await open(t, mock.url);
  let failed = 0;
  page.on("requestfailed", (request) => (failed += request.url().endsWith("/internal/status")));
  await mock.close();
  await page.locator("#notice:not([hidden])").waitFor(PATIENCE);
  assert.ok(failed <= 4, `marked after ${failed} polls, not after three intervals`);
  assert.equal(await page.locator("#live-text").textContent(), "stale");
  assert.match(await page.locator("#notice").textContent(), /does not answer/);
  mock.fleet.run = new Date().toISOString();
  mock.seen.length = 0;
  await mock.listen();
  await page.locator("#live-text", { hasText: "live" }).waitFor(PATIENCE);
  assert.ok(polls(mock, "status").length <= 2, "live by the second poll");
  assert.ok(await page.locator("#notice").isHidden());
});

test("slots, the queue, warm models and prefix hits are shown", { skip: real }, async (t) => {
  const mock = await mocked(t, { count: 3 });
  clearInterval(mock.fleet.clock);
  const [ollama, vllm] = mock.fleet.endpoints;
  [ollama.inFlight, vllm.inFlight, vllm.queued] = [3, 9, 2];
  const { page, complaints } = await open(t, mock.url, "endpoints");
  const cell = (endpoint, label) => page.locator(`#endpoint-${endpoint.id} td[data-label="${label}"]`);
  await cell(vllm, "Running").filter({ hasText: /^4\/4$/ }).waitFor(PATIENCE);
  assert.equal(await cell(vllm, "Queue").textContent(), "2");
  assert.equal(await cell(vllm, "Warm").textContent(), "–", "it does not say");
  assert.equal(await cell(ollama, "Running").textContent(), "3", "it has no limit");
  assert.equal(await cell(ollama, "Warm").textContent(), "2");
  await page.locator(`#endpoint-${ollama.id} button`).click();
  const facts = page.locator(`#details-${ollama.id} .facts div`);
  await facts.filter({ hasText: "In memory" }).filter({ hasText: ollama.models.slice(0, 2).join(", ") }).waitFor(PATIENCE);
  await page.goto(`${mock.url}/internal/ui/#overview`);
  const tile = (name) => page.locator("#tiles .tile", { has: page.locator(`span:text-is("${name}")`) });
  await tile("Queue").locator("b", { hasText: /^2$/ }).waitFor(PATIENCE);
  await tile("Prefix hits").locator("b", { hasText: /^75%$/ }).waitFor(PATIENCE);
  await page.goto(`${mock.url}/internal/ui/#models`);
  const told = page.locator("#models-table a.chip.warm", { hasText: ollama.name });
  await told.first().waitFor(PATIENCE);
  assert.equal(await told.count(), 2, "what the endpoint says counts, and not its last requests");
  quiet(complaints);
});

test("routes that are missing hide their parts", { skip: real }, async (t) => {
  const mock = await mocked(t, { count: 3 });
  mock.fleet.latencyKnown = false;
  const { page } = await open(t, mock.url);
  await page.locator("#slow-card").waitFor({ state: "hidden" });
  assert.ok(await page.locator('nav [data-panel="requests"]').isHidden());
  await page.goto(`${mock.url}/internal/ui/#endpoints`);
  await page.locator("#endpoints-table.without-latency tbody td.avg").first().waitFor();
});

test("a name that is too long keeps its end, and screen readers get the whole name", { skip: real }, async (t) => {
  const mock = await mocked(t, { count: 60 });
  const name = `gateway-of-the-second-building-${"x".repeat(60)}-17`;
  mock.fleet.endpoints[0].name = name;
  const { page, complaints } = await open(t, mock.url, "overview", { viewport: PHONE });
  const link = page.locator("#fleet a", { hasText: name });
  await link.waitFor();
  const [cell, end] = await link.evaluate((node) => [node, node.querySelector("b").lastChild].map((part) => part.getBoundingClientRect().right));
  assert.ok(end <= cell, `the end is at ${end}, the cell ends at ${cell}`);
  assert.equal(await link.locator("b span").last().textContent(), name.slice(-6));
  assert.match(await link.getAttribute("aria-label"), new RegExp(`^${name} · healthy`));
  quiet(complaints);
});

test("unchanged routes are polled with conditional requests", { skip: real }, async (t) => {
  const mock = await mocked(t, { count: 3 });
  clearInterval(mock.fleet.clock);
  const { complaints } = await open(t, mock.url);
  const until = Date.now() + PATIENCE.timeout;
  while (polls(mock, "status/endpoints").length < 2 && Date.now() < until) await new Promise((resolve) => setTimeout(resolve, 100));
  assert.match(polls(mock, "status/endpoints")[1]?.conditional ?? "", /^W\//);
  quiet(complaints);
});

test("names of models and endpoints never become markup", { skip: real }, async (t) => {
  const mock = await mocked(t, { count: 3 });
  const name = '<img src=x onerror="document.title=1">';
  mock.fleet.endpoints[0].name = name;
  for (const request of mock.fleet.requests) request.model = name;
  for (const panel of ["overview", "endpoints", "models", "requests"]) {
    const { page, complaints } = await open(t, mock.url, panel);
    await page.getByText(name).first().waitFor({ state: "attached" });
    assert.equal(await page.locator("main img").count(), 0);
    quiet(complaints);
  }
});
