// The console in a browser, from rest to a lost Redis; each test goes on where the last one ended.

import assert from "node:assert/strict";
import { mkdirSync, readFileSync } from "node:fs";
import { after, before, test } from "node:test";
import Ajv from "ajv/dist/2020.js";
import axe from "axe-core";
import puppeteer from "puppeteer-core";
import { World, until } from "./world.js";

const PICTURES = "target/console";
const THEMES = ["light", "dark"];
const CANARIES = ["canary-token", "canary-contact", "canary-name", "canary.jwt"];
// What the rules of axe-core are asked for: WCAG 2.2, A and AA, and its best practices.
const RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"];

let world;
let browser;
let page;
const errors = [];
const foreign = [];
const asked = [];

before(async () => {
  mkdirSync(PICTURES, { recursive: true });
  world = await World.start();
  browser = await puppeteer.launch({ executablePath: process.env.BROWSER, args: ["--no-sandbox", "--hide-scrollbars"] });
  page = await browser.newPage();
  await page.setViewport({ width: 1200, height: 900 });
  page.on("console", (message) => { if (["error", "warn"].includes(message.type())) errors.push(message.text()); });
  page.on("pageerror", (error) => errors.push(String(error)));
  page.on("request", (request) => {
    asked.push(request.url());
    if (!request.url().startsWith(world.page)) foreign.push(request.url());
  });
  await world.traffic(Number(process.env.WARM_UP_S || 8));
  await page.goto(world.page);
});

after(async () => {
  await browser?.close();
  await world?.end();
});

const text = () => page.evaluate(() => document.body.innerText);
const shows = (what) => until(`the page shows ${what}`, async () => (await text()).includes(what));

async function theme(name) {
  await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: name }]);
}

async function pictures(name) {
  await page.evaluate(() => document.activeElement.blur());
  for (const one of THEMES) {
    await theme(one);
    await page.screenshot({ path: `${PICTURES}/${name}-${one}.png` });
  }
}

/** What axe-core finds, in both themes. */
async function violations() {
  const found = [];
  for (const one of THEMES) {
    await theme(one);
    await page.evaluate(axe.source);
    const { violations: seen } = await page.evaluate((values) => axe.run(document, { runOnly: { type: "tag", values } }), RULES);
    found.push(...seen.map(({ id, nodes }) => `${one}: ${id}: ${nodes.map(({ target }) => target).slice(0, 3).join(" ")}`));
  }
  return found;
}

test("it shows readiness, tenants, levels and the last refused calls with their reasons", async () => {
  for (const what of ["Ready", "us-main", "circuit closed", "chat-bots", "voice-ivr", "new-team", "shadow", "20/s", "of 40 calls", "redis, standalone", "AWS credentials of us-main: valid"]) {
    await shows(what);
  }
  for (const what of ["RESOURCE_EXHAUSTED TENANT_RATE_LIMITED", "night-batch on us-main", "The caller is above its rate: try again after the delay.", "refused in the last minute by its rate"]) {
    await shows(what);
  }
  await pictures("rest");
});

test("it updates by itself", async () => {
  const before = page.url();
  const shown = await page.evaluate(() => { window.sameDocument = true; return document.getElementById("process").textContent; });
  await world.call("voice-ivr", "sim-not-found", { id: "a-call-from-the-test" });
  await shows("a-call-from-the-test");
  await shows("NOT_FOUND CONTACT_OR_INSTANCE_NOT_FOUND");
  await until("the uptime goes on", async () => (await page.evaluate(() => document.getElementById("process").textContent)) !== shown);
  assert.equal(page.url(), before);
  assert.ok(await page.evaluate(() => window.sameDocument), "the page was loaded anew");
});

test("it has no scroll to the side at 400 pixels", async () => {
  await page.setViewport({ width: 400, height: 900 });
  const { wide, widest } = await page.evaluate(() => ({
    wide: document.documentElement.scrollWidth,
    widest: [...document.querySelectorAll("body *")].filter((one) => one.getBoundingClientRect().right > 400.5).map((one) => one.outerHTML.slice(0, 80)),
  }));
  assert.deepEqual(widest, []);
  assert.ok(wide <= 400, `${wide} pixels`);
  assert.deepEqual(await violations(), []);
  await theme("light");
  await page.screenshot({ path: `${PICTURES}/narrow-light.png` });
  await page.setViewport({ width: 1200, height: 900 });
});

test("it passes the rules of axe-core in both themes", async () => {
  assert.deepEqual(await violations(), []);
});

test("tenants are filtered by name, by keyboard alone", async () => {
  await page.evaluate(() => document.activeElement.blur());
  let focused = "";
  for (let steps = 0; focused !== "filter" && steps < 20; steps += 1) {
    await page.keyboard.press("Tab");
    focused = await page.evaluate(() => document.activeElement.id);
  }
  assert.equal(focused, "filter");
  const shown = () => page.$$eval("#tenants h3", (names) => names.map((name) => name.textContent));
  assert.deepEqual((await shown()).sort(), ["chat-bots", "new-team", "night-batch", "voice-ivr"]);
  await page.keyboard.type("voice");
  await until("one tenant is left", async () => JSON.stringify(await shown()) === '["voice-ivr"]');
  await page.keyboard.press("Escape");
  await page.$eval("#filter", (input) => { input.value = ""; input.dispatchEvent(new Event("input")); });
  await until("all are back", async () => (await shown()).length === 4);
});

test("a page that is paused asks nothing", async () => {
  await page.focus("#pause");
  await page.keyboard.press("Enter");
  await shows("Paused");
  const count = asked.length;
  await new Promise((resolve) => setTimeout(resolve, 2500));
  assert.equal(asked.length, count);
  await page.keyboard.press("Enter");
  await until("it asks again", () => asked.length > count);
});

test("it shows no secret and nothing personal", async () => {
  const reply = await world.call("chat-bots", "canary-contact", { token: "canary-token", name: "canary-name" });
  const [, participantToken] = reply.match(/"participantToken": "([^"]+)"/);
  await world.call("canary.jwt", "sim-invalid", { token: "canary-token", name: "canary-name", id: "after-the-canaries" });
  await shows("after-the-canaries");
  const status = await (await fetch(`${world.page}status`)).text();
  const shown = (await page.content()) + status;
  for (const canary of [...CANARIES, participantToken]) assert.ok(!shown.includes(canary), canary);
});

test("/status is what its schema says", async () => {
  const schema = JSON.parse(readFileSync("docs/status.schema.json", "utf8"));
  const ajv = new Ajv({ strict: false, validateFormats: false });
  const status = await (await fetch(`${world.page}status`)).json();
  assert.ok(ajv.validate(schema, status), JSON.stringify(ajv.errors));
  assert.ok(!ajv.validate(schema, { ...status, uptime_seconds: "long" }), "the schema takes anything");
});

test("it says that Amazon Connect throttles", async () => {
  await world.throttled();
  await shows("Amazon Connect throttles");
  await shows("throttled");
  await pictures("throttled");
});

test("it says that Redis is lost, and what that means", async () => {
  await world.redis.end();
  const calling = world.traffic(4);
  await shows("Redis is lost since");
  await shows("1/3 of every limit");
  await calling;
  await pictures("redis-lost");
  assert.deepEqual(await violations(), []);
});

test("it has had no error, and has asked nobody else", async () => {
  assert.deepEqual(errors, []);
  assert.deepEqual(foreign, []);
  assert.ok(asked.length > 10, `${asked.length} requests`);
});

test("it says how old its figures are once the gateway is gone", async () => {
  await world.gateway.end();
  await shows("No answer: these figures are");
});
