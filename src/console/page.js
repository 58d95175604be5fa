// Asks /status once a second, and draws the answer. A part of the page is drawn anew only if its
// figures have changed. So text can be selected and copied.
"use strict";

const SVG = "http://www.w3.org/2000/svg";
const drawn = new Map();
const filter = document.getElementById("filter");
const pause = document.getElementById("pause");
let paused = false;
let latest = null;
let timer = null;
let turn = 0;

function element(name, attributes, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes || {})) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function shape(name, attributes, ...children) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function draw(id, figures, children) {
  const text = JSON.stringify(figures);
  if (drawn.get(id) === text) return;
  drawn.set(id, text);
  document.getElementById(id).replaceChildren(...children());
}

// At most this many decimals, without zeros at the end.
function figure(value, decimals = 1) {
  return value === undefined ? "not known" : String(Number(value.toFixed(decimals)));
}

function duration(seconds) {
  const whole = Math.round(Math.abs(seconds));
  const units = [["day", 86400], ["h", 3600], ["min", 60], ["s", 1]];
  const at = units.findIndex(([, size]) => whole >= size);
  if (at < 0) return "0 s";
  const shown = (amount, unit) => `${amount} ${unit}${unit === "day" && amount !== 1 ? "s" : ""}`;
  const [unit, size] = units[at];
  const first = shown(Math.floor(whole / size), unit);
  const next = units[at + 1];
  const rest = next ? Math.floor((whole % size) / next[1]) : 0;
  return rest > 0 ? `${first} ${shown(rest, next[0])}` : first;
}

function clock(time) {
  return element("time", { datetime: time }, new Date(time).toLocaleTimeString([], { hour12: false }));
}

function term(name, ...values) {
  return [element("dt", {}, name), element("dd", {}, ...values)];
}

// How much of the most is left, as a bar. The figure stands beside it as text.
function bar(value, most) {
  const share = value === undefined ? 0 : Math.max(0, Math.min(1, value / most));
  return shape("svg", { class: "bar", viewBox: "0 0 100 4", preserveAspectRatio: "none", "aria-hidden": "true" },
    shape("rect", { class: "track", width: 100, height: 4 }),
    shape("rect", { class: share < 0.2 ? "bad" : "good", width: 100 * share, height: 4 }));
}

// Good outcomes go up and the others go down, on the same scale.
function plot({ good, bad, point_seconds }, words) {
  const points = Math.max(good.length, bad.length, 60);
  const up = Math.max(0, ...good);
  const down = Math.max(0, ...bad);
  const sum = (counts) => counts.reduce((all, count) => all + count, 0);
  const [high, low] = [40, 16];
  const scale = Math.max(up / high, down / low) || 1;
  const label = `Last 15 minutes: ${sum(good)} ${words[0]}, ${sum(bad)} ${words[1]}; at most ${up} and ${down} in ${point_seconds} seconds`;
  const bars = [];
  const column = (name, x, y, height) => bars.push(shape("rect", { class: name, x: x + 0.1, y, width: 0.8, height }));
  good.forEach((count, x) => { if (count) column("good", x, high - Math.max(1, count / scale), Math.max(1, count / scale)); });
  bad.forEach((count, x) => { if (count) column("bad", x, high, Math.max(1, count / scale)); });
  return shape("svg", { class: "plot", viewBox: `0 0 ${points} ${high + low}`, preserveAspectRatio: "none", role: "img", "aria-label": label },
    ...bars,
    shape("line", { class: "axis", x1: 0, x2: points, y1: high, y2: high }));
}

// Counts of the last minute, those that are not 0, the largest first.
function counts(of, good, words) {
  const line = element("p", { class: "counts" }, "Last minute: ");
  const shown = Object.entries(of).filter(([, count]) => count > 0).sort(([, one], [, other]) => other - one);
  if (shown.length === 0) line.append("none");
  shown.forEach(([kind, count], at) => {
    line.append(at > 0 ? ", " : "", element("span", good.includes(kind) ? {} : { class: "bad-text" }, `${count} ${words[kind] || kind.replaceAll("_", " ")}`));
  });
  return line;
}

const CIRCUITS = { closed: ["circuit closed", "fine"], half_open: ["circuit half-open", "warning"], open: ["circuit open", "critical"] };
const DECISIONS = { tenant_rate: "refused by its rate", in_flight: "refused by its calls in flight", budget: "refused by the budget", reused: "with a used client_token" };

function upstream(of) {
  const [words, kind] = CIRCUITS[of.circuit];
  const inUse = of.rate_in_use_per_second === undefined ? "not known"
    : `${figure(of.rate_in_use_per_second, 2)}/s of ${figure(of.rate_per_second, 2)}/s (factor ${figure(of.factor, 2)})`;
  const all = Object.values(of.attempts.last_minute).reduce((sum, count) => sum + count, 0);
  return element("li", { class: "card" },
    element("header", {}, element("h3", {}, of.name), element("span", { class: "soft" }, of.region), element("span", { class: `state ${kind}` }, words)),
    element("dl", {},
      ...term("Budget", `${figure(of.level)} of ${of.burst} calls`, bar(of.level, of.burst)),
      ...term("Rate in use", inUse),
      ...term("Queue", of.queue === undefined ? "not known" : `${of.queue} waiting`),
      ...term("Attempts", `${figure(all / 60)}/s`)),
    counts(of.attempts.last_minute, ["ok"], {}),
    plot(of.attempts.plot, ["answered", "failed"]));
}

function tenant(of) {
  const committed = of.committed_per_second > 0
    ? `${figure(of.committed_per_second, 2)}/s, ${figure(of.share)} calls saved up` : "none";
  return element("li", { class: "card" },
    element("header", {}, element("h3", {}, of.tenant), element("span", { class: "soft" }, `on ${of.upstream}`),
      ...(of.shadow ? [element("span", { class: "state warning" }, "shadow")] : [])),
    element("dl", {},
      ...term("Rate", `${figure(of.rate_per_second, 2)}/s`),
      ...term("Level", `${figure(of.level)} of ${of.burst} calls`, bar(of.level, of.burst)),
      ...term("Committed", committed),
      ...term("In flight", `${of.in_flight === undefined ? "not known" : of.in_flight} of ${of.max_in_flight}`)),
    counts(of.decisions.last_minute, ["admitted", "replayed"], of.shadow
      ? { ...DECISIONS, tenant_rate: "over its rate", in_flight: "over its calls in flight" } : DECISIONS),
    plot(of.decisions.plot, ["admitted or replayed", "refused"]));
}

function failed(of) {
  const who = of.tenant ? `${of.tenant}${of.upstream ? ` on ${of.upstream}` : ""}` : "unknown caller";
  const why = of.refusal ? ` (${of.refusal})` : "";
  return element("li", {},
    element("p", {}, clock(of.at), " ", element("span", { class: "code" }, [...new Set([of.code, of.reason])].join(" ").trim() + why), " ", element("span", { class: "soft" }, who)),
    element("p", {}, of.sentence),
    element("p", { class: "soft" }, "Request ", element("span", { class: "id" }, of.request_id)));
}

function ends(of, now) {
  const left = of.ends === undefined ? null : (Date.parse(of.ends) - now) / 1000;
  const when = left === null ? "" : left > 0 ? `, ends at ${of.ends} (in ${duration(left)})` : `, ended at ${of.ends}`;
  return when;
}

function credentials(of, now) {
  const words = { not_loaded: "not loaded before the first call", valid: of.ends ? "valid" : "valid, without an end", renewing: "valid, but not renewed", failing: "cannot be loaded" };
  return element("li", { class: of.state === "failing" ? "critical" : "" }, `AWS credentials of ${of.upstream}: ${words[of.state]}${ends(of, now)}`);
}

function store(of) {
  const rows = [...term("Kind", of.topology ? `${of.kind}, ${of.topology}` : of.kind)];
  if (of.kind !== "memory") {
    rows.push(...term("State", of.degraded_since ? `lost since ${of.degraded_since}` : "in use"));
    rows.push(...term("Round trip", of.round_trip_seconds === undefined ? "not known" : `${figure(of.round_trip_seconds * 1000, 2)} ms (median)`));
    rows.push(...term("On loss", of.replicas ? `${of.on_loss}, 1/${of.replicas} of every limit` : of.on_loss));
    rows.push(...term("Unsettled", `${of.unsettled} results`));
  }
  return rows;
}

function show(status) {
  const { tenants, calls } = status;
  const now = Date.parse(status.at);
  const ready = document.getElementById("ready");
  ready.textContent = status.ready ? "Ready" : `Not ready: ${status.not_ready}`;
  ready.className = `badge ${status.ready ? "fine" : "critical"}`;
  document.getElementById("process").textContent =
    `Version ${status.version}, up ${duration(status.uptime_seconds)}, config ${status.config_version}, ${calls.in_flight} of ${calls.max_in_flight} calls in flight`;
  const worst = status.troubles.length === 0 ? "" : status.troubles[0].severity === "critical" ? "(!!) " : "(!) ";
  document.title = `${worst}Participant Gateway`;
  draw("troubles", status.troubles, () => status.troubles.length === 0
    ? [element("li", { class: "trouble fine" }, "Nothing is wrong.")]
    : status.troubles.map(({ severity, text }) => element("li", { class: `trouble ${severity}` }, text)));
  draw("upstreams", status.upstreams, () => status.upstreams.map(upstream));
  draw("tenants", tenants.shown, () => tenants.shown.map(tenant));
  const { length } = tenants.shown;
  const text = length < tenants.matching
    ? `The ${length} with most calls of ${tenants.matching}: a longer name finds the others.`
    : `${length} shown, those with most calls first.`;
  const matching = document.getElementById("matching");
  if (matching.textContent !== text) matching.textContent = text;
  const reasons = calls.reasons_last_minute.map(({ reason, calls: count }) => `${count} ${reason || "CANCELLED"}`).join(", ");
  document.getElementById("reasons").textContent = `Last minute: ${reasons || "none"}.`;
  draw("failed", status.failed_calls, () => status.failed_calls.length === 0
    ? [element("li", {}, "None yet.")] : status.failed_calls.map(failed));
  draw("store", status.store, () => store(status.store));
  draw("ends", [status.credentials, status.certificates, Math.floor(now / 60000)], () => [
    ...status.credentials.map((of) => credentials(of, now)),
    ...status.certificates.map((of) => element("li", {}, `Certificate of ${of.path}${ends(of, now)}`)),
  ]);
}

function tell(error) {
  const fresh = document.getElementById("fresh");
  fresh.className = error ? "badge critical" : "";
  if (error) fresh.textContent = latest
    ? `No answer: these figures are ${duration((Date.now() - latest) / 1000)} old` : "No answer";
  else fresh.textContent = paused ? "Paused" : `As of ${new Date(latest).toLocaleTimeString([], { hour12: false })}`;
}

async function refresh() {
  const own = ++turn;
  clearTimeout(timer);
  // A hidden page makes no requests.
  if (!paused && !document.hidden) {
    try {
      const answer = await fetch(`/status?tenant=${encodeURIComponent(filter.value.trim())}`, { signal: AbortSignal.timeout(5000) });
      if (!answer.ok) throw new Error(`status ${answer.status}`);
      const status = await answer.json();
      // A later request, with another filter, is on its way: its answer counts.
      if (own !== turn) return;
      show(status);
      latest = Date.now();
      tell(false);
    } catch {
      if (own !== turn) return;
      tell(true);
    }
  }
  clearTimeout(timer);
  timer = setTimeout(refresh, 1000);
}

pause.addEventListener("click", () => {
  paused = !paused;
  pause.setAttribute("aria-pressed", String(paused));
  if (latest) tell(false);
  refresh();
});
filter.addEventListener("input", refresh);
document.getElementById("search").addEventListener("submit", (event) => event.preventDefault());
document.addEventListener("visibilitychange", refresh);
refresh();
