// The ops page: shows each view that comes. Whatever is shown is text: nothing that came from outside is ever markup.
"use strict";

const $ = (id) => document.getElementById(id);
const STATE_WORDS = {
  cpu: "computing", running: "computing", ready: "ready, queued", upstream: "upstream", query: "query", pool: "database pool", dns: "DNS",
  offload: "offloaded", lock: "lock", sleep: "sleep", client: "client", other: "other",
};
let view = null;
let heardAt = Date.now();
let order = { key: "age_seconds", down: true };
let announced = "";
const MOST_ROWS = 25;
const MOST_FILTERED = 100;

// --- small helpers ---

function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name === "data") Object.assign(element.dataset, value);
    else if (name === "className" || name === "type" || name === "scope") element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

function say(element, text) {
  // Only what changes is touched: a selection, or a screen reader in the middle of it, stays.
  if (element.textContent !== text) element.textContent = text;
}

function level(element, value) {
  if (value) element.dataset.level = value;
  else delete element.dataset.level;
}

function seconds(value) {
  if (value === null || value === undefined) return "–";
  if (value < 0.0005) return value > 0 ? "<1 ms" : "0";
  if (value < 1) return `${value < 0.01 ? (value * 1000).toFixed(1) : Math.round(value * 1000)} ms`;
  if (value < 120) return `${value < 10 ? value.toFixed(1) : Math.round(value)} s`;
  return value < 7200 ? `${Math.round(value / 60)} min` : `${Math.round(value / 3600)} h`;
}

function rate(value) {
  if (!value) return "0";
  return value < 10 ? value.toFixed(1) : Math.round(value).toLocaleString("en");
}

const whole = (value) => Math.round(value || 0).toLocaleString("en");
const percent = (value) => `${Math.round((value || 0) * 100)} %`;
const megabytes = (value) => (value ? `${Math.round(value / 1e6)} MB` : "–");
const clock = (at) => new Date(at * 1000).toLocaleTimeString();

// A table whose rows are kept by key: focus and scrolling survive each second's news.
function table(id, columns, rows, { key, empty = "None.", levelOf = () => "" }) {
  const element = $(id);
  if (!element.tHead) {
    const row = element.createTHead().insertRow();
    for (const column of columns) row.append(make("th", { scope: "col", className: column.className || "" }, column.name));
    element.createTBody();
  }
  const body = element.tBodies[0];
  const known = new Map([...body.rows].map((row) => [row.dataset.key, row]));
  const wanted = rows.length ? rows : [null];
  const focused = document.activeElement;
  const stay = new Set(wanted.map((data) => (data === null ? "" : String(key(data)))));
  for (const [name, row] of known) if (!stay.has(name)) row.remove();
  wanted.forEach((data, index) => {
    const name = data === null ? "" : String(key(data));
    let row = known.get(name);
    if (!row) {
      row = make("tr", { data: { key: name } });
      if (data === null) row.append(make("td", { className: "empty", colspan: columns.length }, empty));
      else columns.forEach((column, at) => {
        const cell = make(at === 0 ? "th" : "td", at === 0 ? { scope: "row" } : {});
        cell.className = column.className || "";
        row.append(cell);
      });
    }
    if (body.rows[index] !== row) body.insertBefore(row, body.rows[index] || null);
    if (data === null) return;
    level(row, levelOf(data));
    columns.forEach((column, at) => column.show(row.cells[at], data));
  });
  // A row that is moved loses the focus.
  if (focused !== document.activeElement && focused.isConnected) focused.focus({ preventScroll: true });
}

const text = (name, of, className = "text") => ({ name, className, show: (cell, row) => say(cell, String(of(row) ?? "")) });
const number = (name, of) => text(name, of, "number");

// A bar of parts, each in its state's colour; in words for who can't see it.
function stack(parent, parts, label) {
  let bar = parent.querySelector(".stack");
  if (!bar) parent.append((bar = make("div", { className: "stack", role: "img" })));
  bar.setAttribute("aria-label", label);
  bar.title = label;
  const shown = parts.filter(([, share]) => share > 0.004);
  while (bar.children.length > shown.length) bar.lastChild.remove();
  shown.forEach(([state, share], at) => {
    const part = bar.children[at] || bar.appendChild(make("i"));
    part.dataset.state = state === "running" ? "cpu" : state;
    part.style.width = `${share * 100}%`;
  });
  return bar;
}

function shares(values) {
  return (view.states || []).map((state, at) => [state, values[at] || 0]);
}

function inWords(parts) {
  return parts.filter(([, share]) => share >= 0.01).sort((one, other) => other[1] - one[1])
    .map(([state, share]) => `${STATE_WORDS[state] || state} ${percent(share)}`).join(", ") || "nothing measured yet";
}

// --- the parts of the page ---

function showVerdict(verdict) {
  $("verdict").dataset.level = verdict.level;
  say($("sentence"), verdict.sentence);
  say($("advice"), verdict.do || "");
  const calls = verdict.stack || [];
  $("where").hidden = !calls.length;
  say($("where-stack"), marked(calls, calls.findIndex((call) => verdict.line && call.startsWith(`${verdict.line} `))));
  const list = $("others");
  const others = verdict.others.slice(0, 6);
  while (list.children.length > others.length) list.lastChild.remove();
  others.forEach((other, at) => say(list.children[at] || list.appendChild(make("li")), other.sentence));
  const mark = { ok: "✓", watch: "!", bad: "✕" }[verdict.level] || "…";
  document.title = `${mark} ${verdict.sentence.slice(0, 60)} – greenroom`;
  // Numbers change every second; what is said aloud is said once.
  const kind = [verdict.level, verdict.cause, verdict.worker, verdict.line, verdict.detail].join();
  if (kind !== announced) {
    announced = kind;
    say($("announce"), verdict.sentence);
  }
}

function showSaturation(rows) {
  const parent = $("saturation");
  while (parent.children.length > rows.length) parent.lastChild.remove();
  rows.forEach((row, at) => {
    let meter = parent.children[at];
    if (!meter) {
      const bar = make("div", { className: "track", role: "meter", "aria-valuemin": "0", "aria-valuemax": "100" }, make("i"));
      meter = parent.appendChild(make("div", { className: "meter" }, make("b"), bar, make("span", { className: "text" })));
    }
    const [name, bar, words] = meter.children;
    say(name, row.name);
    say(words, row.text);
    bar.setAttribute("aria-label", `${row.name}: ${row.text}`);
    bar.setAttribute("aria-valuenow", Math.round(row.ratio * 100));
    bar.firstChild.style.width = `${Math.min(1, row.ratio) * 100}%`;
    level(bar.firstChild, row.ratio >= 0.9 ? "bad" : row.ratio >= 0.7 ? "watch" : "");
  });
}

function showTiles(total, history) {
  const tiles = [
    ["Requests/s", rate(total.requests_rate), "", history.requests, ""],
    ["Served well/s", rate(total.goodput_rate), "", null, ""],
    ["Turned away/s", rate(total.shed_rate), `${whole(total.shed)} in all`, history.shed, total.shed_rate ? "bad" : ""],
    ["Failed/s", rate(total.error_rate), "5xx", history.errors, total.error_rate ? "watch" : ""],
    ["In flight", whole(total.in_flight), total.queued ? `${whole(total.queued)} queue` : "", history.in_flight, ""],
    ["Median", seconds(total.p50), `p99 ${seconds(total.p99)}`, null, ""],
    ["Loop lag", seconds(total.lag_seconds), "", history.lag_seconds, total.lag_seconds >= 1 ? "bad" : total.lag_seconds >= 0.1 ? "watch" : ""],
    ["Busiest worker", percent(history.cpu_ratio.at(-1)), "of a core", history.cpu_ratio, ""],
  ];
  const list = $("tiles");
  tiles.forEach(([name, value, small, points, mark], at) => {
    let tile = list.children[at];
    if (!tile) {
      tile = list.appendChild(make("div", {}, make("dt", {}, name), make("dd", {}, make("b"), make("small"))));
      if (points) tile.lastChild.append(sparkline());
    }
    const cell = tile.lastChild;
    say(cell.children[0], value);
    say(cell.children[1], small);
    level(cell, mark);
    if (points) draw(cell.children[2], points);
  });
}

function sparkline() {
  const namespace = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(namespace, "svg");
  svg.setAttribute("viewBox", "0 0 120 30");
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("aria-hidden", "true");
  svg.append(document.createElementNS(namespace, "polyline"));
  return svg;
}

function draw(svg, points) {
  const most = Math.max(...points, 1e-9);
  const step = 120 / Math.max(1, points.length - 1);
  svg.firstChild.setAttribute("points", points.map((value, at) => `${(at * step).toFixed(1)},${(29 - (value / most) * 27).toFixed(1)}`).join(" "));
}

function showLatency(total) {
  const parent = $("latency");
  const longest = Math.max(total.p99 || 0, total.p95 || 0, total.p50 || 0, 1e-9);
  [["p50", "p50_by_state"], ["p95", "p95_by_state"], ["p99", "p99_by_state"]].forEach(([name, by], at) => {
    let row = parent.children[at];
    if (!row) {
      row = parent.appendChild(make("div", { className: "row" }, make("span", {}, name), make("div", { className: "space" }), make("span")));
    }
    const parts = shares(total[by] || []);
    const bar = stack(row.children[1], parts, `${name}: ${seconds(total[name])}; ${inWords(parts)}`);
    bar.style.width = `${((total[name] || 0) / longest) * 100}%`;
    say(row.children[2], seconds(total[name]));
  });
  const legend = $("legend");
  if (!legend.children.length) {
    for (const state of view.states) legend.append(make("li", { className: "key", data: { state } }, STATE_WORDS[state] || state));
  }
}

function barColumn(name, by) {
  return { name, show: (cell, row) => { const parts = shares(row[by] || []); stack(cell, parts, inWords(parts)); } };
}

function showRoutes(routes) {
  table("routes", [
    text("Route", (row) => row.route, "text mono"),
    number("per s", (row) => rate(row.rate)),
    number("5xx", (row) => whole(row.errors)),
    number("late or left", (row) => whole(row.cut)),
    number("p50", (row) => seconds(row.p50)),
    barColumn("p50 goes to", "p50_by_state"),
    number("p99", (row) => seconds(row.p99)),
    barColumn("p99 goes to", "p99_by_state"),
  ], routes.slice(0, 25), { key: (row) => row.route, empty: "No request has finished yet.", levelOf: (row) => (row.errors ? "watch" : "") });
}

function showInFlight() {
  const states = Object.entries(view.in_flight_states);
  const count = states.reduce((sum, [, some]) => sum + some, 0);
  const parent = $("flight-states");
  const parts = states.map(([state, some]) => [state, some / Math.max(1, count)]);
  stack(parent, parts, inWords(parts));
  const words = states.map(([state, some]) => `${whole(some)} ${STATE_WORDS[state] || state}`).join(", ");
  const untold = view.total.in_flight_untold ? `${whole(view.total.in_flight_untold)} in workers that don't answer` : "";
  say($("flight-count"), count ? [`${whole(count)}: ${words}`, untold].filter(Boolean).join("; ") : untold || "none");
  showGroups();
  const wanted = $("filter").value.toLowerCase();
  const rows = view.in_flight
    .filter((row) => !wanted || [row.id, row.route, row.path, row.state, row.detail].join(" ").toLowerCase().includes(wanted))
    .sort((one, other) => {
      const [left, right] = [one[order.key] ?? "", other[order.key] ?? ""];
      const up = typeof left === "number" && typeof right === "number" ? left - right : String(left).localeCompare(String(right));
      return order.down ? -up : up;
    });
  table("in-flight", [
    { name: "Route", className: "text mono", show: (cell, row) => requestButton(cell, row) },
    number("Age", (row) => seconds(row.age_seconds)),
    text("Doing", (row) => row.became || STATE_WORDS[row.state] || row.state),
    text("For", (row) => row.detail, "text mono"),
    number("Since", (row) => seconds(row.state_seconds)),
    number("Left", (row) => (row.budget_seconds === null || row.budget_seconds === undefined ? "–" : seconds(row.budget_seconds))),
    number("Worker", (row) => row.worker + (row.is_stale ? " ?" : "")),
  ], rows.slice(0, wanted ? MOST_FILTERED : MOST_ROWS), { key: (row) => `${row.pid}/${row.id}`, empty: wanted ? "None like this." : "None.", levelOf: (row) => (row.is_cut ? "watch" : "") });
  const shown = Math.min(rows.length, wanted ? MOST_FILTERED : MOST_ROWS);
  say($("flight-shown"), count > shown ? `${whole(shown)} of ${whole(count)} are shown${wanted ? "" : "; show only some of them to see others"}.` : "");
  sortButtons();
}

// Hundreds of requests are a few lines: what they are asked for, and what they wait for.
function showGroups() {
  table("flight-groups", [
    { name: "Route", className: "text mono", show: (cell, row) => groupButton(cell, row) },
    number("requests", (row) => whole(row.count)),
    text("Doing", (row) => STATE_WORDS[row.state] || row.state),
    text("For", (row) => row.detail, "text mono"),
    number("oldest", (row) => seconds(row.oldest_seconds)),
    text("at line", (row) => row.line, "text mono"),
  ], view.in_flight_groups.slice(0, MOST_ROWS), { key: (row) => `${row.route} ${row.state} ${row.detail}` });
}

function groupButton(cell, row) {
  let button = cell.firstChild;
  if (!button) cell.append((button = make("button", { type: "button", className: "link" })));
  say(button, row.route);
  button.onclick = () => { $("filter").value = row.route; showInFlight(); $("filter").focus(); };
}

function requestButton(cell, row) {
  let button = cell.firstChild;
  if (!button) cell.append((button = make("button", { type: "button", className: "link" })));
  say(button, `${row.method || ""} ${row.route}`.trim());
  button.onclick = () => openRequest(row);
}

function sortButtons() {
  const keys = { Route: "route", Age: "age_seconds", Doing: "state", For: "detail", Since: "state_seconds", Left: "budget_seconds", Worker: "worker" };
  for (const head of $("in-flight").tHead.rows[0].cells) {
    const key = keys[head.textContent];
    if (!head.querySelector("button")) {
      const button = make("button", { type: "button" }, head.textContent);
      head.replaceChildren(button);
      button.onclick = () => { order = { key, down: order.key === key ? !order.down : true }; showInFlight(); };
    }
    if (order.key === key) head.setAttribute("aria-sort", order.down ? "descending" : "ascending");
    else head.removeAttribute("aria-sort");
  }
}

async function openRequest(row) {
  say($("request-title"), `${row.method || ""} ${row.route}`.trim());
  const facts = [
    ["Id", row.id], ["Path", row.path], ["Worker", `${row.worker}, pid ${row.pid}`], ["Age", seconds(row.age_seconds)],
    ["Doing", `${STATE_WORDS[row.state] || row.state} for ${seconds(row.state_seconds)}`], ["Waits for", row.detail],
    ["Budget left", row.budget_seconds === null || row.budget_seconds === undefined ? "" : seconds(row.budget_seconds)],
    ["Time so far", inSeconds(row.seconds || [])],
  ].filter(([, value]) => value !== "" && value !== null && value !== undefined);
  $("request-facts").replaceChildren(...facts.flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, String(value))]));
  $("request-stacks").replaceChildren(make("p", { role: "status" }, "Asking the worker…"));
  if (!$("request").open) $("request").showModal();
  let parts;
  try {
    const response = await fetch(`/request/${row.pid}/${encodeURIComponent(row.id)}`);
    parts = stacks(await response.json());
  } catch (error) {
    parts = [make("p", { role: "status" }, `The ops process does not answer: ${error.message}`)];
  }
  $("request-stacks").replaceChildren(...parts);
}

function inSeconds(values) {
  return shares(values).filter(([, some]) => some >= 0.0005).map(([state, some]) => `${STATE_WORDS[state] || state} ${seconds(some)}`).join(", ");
}

function stacks(answer) {
  if (answer.error) return [make("p", { role: "status" }, answer.error)];
  if (answer.gone) return [make("p", { role: "status" }, "It is answered already.")];
  return (answer.greenlets || []).flatMap((greenlet) => [
    make("h3", {}, `${greenlet.name} (${greenlet.state})`),
    make("pre", { tabindex: "0" }, marked(greenlet.stack || [], greenlet.own) || "no Python code"),
  ]);
}

// The application's own innermost frame has a mark: the others are mostly of packages.
function marked(calls, own) {
  return calls.map((call, at) => (calls[own] === undefined ? call : `${at === own ? "▸" : " "} ${call}`)).join("\n");
}

function showRest() {
  table("upstreams", [
    text("Host", (row) => row.host, "text mono"),
    number("per s", (row) => rate(row.rate)),
    number("takes", (row) => seconds(row.seconds)),
    number("usually", (row) => seconds(row.usual_seconds)),
    number("waiting now", (row) => whole(row.waiting)),
    number("longest", (row) => (row.waiting ? seconds(row.longest_seconds) : "–")),
    text("answers", (row) => Object.entries(row.statuses || {}).map(([status, some]) => `${whole(some)} × ${status}`).join(", ")),
    number("no connection", (row) => whole((row.refused || 0) + (row.timed_out || 0) + (row.failed || 0))),
    number("calls each", (row) => (row.calls_per_request ? row.calls_per_request.toFixed(1) : "–")),
    text("called at", (row) => (row.bad_lines?.[0] || row.lines?.[0] || {}).line || "", "text mono"),
  ], view.upstreams.slice(0, 15), { key: (row) => row.host, empty: "No request has waited for another host.", levelOf: (row) => (row.bad_answers || row.refused || row.timed_out || row.failed ? "watch" : "") });
  showCauses();
  table("pools", [
    text("Pool", (row) => row.name, "text mono"),
    text("of", (row) => row.kind),
    number("in use", (row) => (row.size ? `${whole(row.in_use)} of ${whole(row.size)}` : whole(row.in_use))),
    text("fullest", (row) => row.fullest),
    number("requests waiting", (row) => whole(row.waiting)),
    number("workers", (row) => whole(row.workers)),
  ], view.pools, { key: (row) => row.kind + row.name, empty: "No pool is in use.", levelOf: (row) => (row.waiting ? "bad" : "") });
  table("stalls", [
    text("Line", (row) => row.line, "text mono"),
    number("times", (row) => (row.now ? "now" : whole(row.count))),
    number("together", (row) => seconds(row.seconds)),
    number("longest", (row) => seconds(row.now ? row.seconds : row.longest_seconds)),
    text("Route", (row) => row.route, "text mono"),
  ], [...stallsNow(), ...view.stalls.top.slice(0, 12)], { key: (row) => row.now || row.line, empty: "Nothing has.", levelOf: (row) => (row.now ? "bad" : "") });
  table("held", [
    text("Last used at", (row) => row.used, "text mono"),
    text("held while waiting at", (row) => [row.upstream, row.host].filter(Boolean).join(" for "), "text mono"),
    number("times", (row) => whole(row.count)),
    number("together", (row) => seconds(row.seconds)),
    number("released: up to", (row) => (row.gain > 1.05 ? `${row.gain.toFixed(1)}×` : "–")),
  ], view.held, { key: (row) => `${row.used}${row.upstream}`, empty: "None." });
  table("workers", [
    text("Worker", (row) => row.number, "number"),
    number("pid", (row) => row.pid),
    text("State", (row) => row.state + (row.is_stale && row.state !== "booting" ? ", does not answer" : "")),
    number("in flight", (row) => whole(row.in_flight) + (row.limit_requests ? ` of ${row.limit_requests}` : "")),
    number("queue", (row) => whole(row.queued)),
    number("connections", (row) => whole(row.connections)),
    number("requests/s", (row) => rate(row.requests_rate)),
    number("well/s", (row) => rate(row.goodput_rate)),
    number("turned away/s", (row) => rate(row.shed_rate)),
    number("p95", (row) => seconds(row.p95)),
    number("requests", (row) => whole(row.requests)),
    number("stalls", (row) => whole(row.stalls)),
    number("lag", (row) => seconds(row.lag_seconds)),
    number("CPU", (row) => percent(row.cpu_ratio)),
    number("memory", (row) => megabytes(row.rss_bytes)),
    number("age", (row) => seconds(row.age_seconds)),
  ], view.workers, {
    key: (row) => row.pid, empty: "No worker runs.",
    levelOf: (row) => (["gone", "stopped"].includes(row.state) || row.lag_seconds >= 1 ? "bad" : row.state === "serving" ? "" : "watch"),
  });
  const all = view.total;
  say($("lives"), `${whole(all.workers_started)} started, ${whole(all.workers_ended - all.workers_died)} ended in order, ${whole(all.workers_died)} died since the server started.`);
  const happened = { started: "started", ended: "ended in order", died: "died", reload: "the server was told to reload" };
  table("events", [
    text("When", (row) => clock(row.at)),
    text("Worker", (row) => (row.pid ? `${row.worker || ""} (pid ${row.pid})` : "all")),
    text("What", (row) => (happened[row.kind] || row.kind) + ending(row) + (row.had ? `, with ${whole(row.had)} in flight` : "")
      + (row.stall ? `, blocked for ${seconds(row.stall.seconds)}${row.stall.line ? ` at ${row.stall.line}` : ""}` : "")),
  ], view.events.slice(0, 12), { key: (row) => `${row.at}${row.pid}${row.kind}`, levelOf: (row) => (row.kind === "died" ? "bad" : "") });
  table("recordings", [
    { name: "Saved", className: "text", show: recordingLink },
    number("size", (row) => `${Math.max(1, Math.round(row.bytes / 1000))} kB`),
  ], view.recordings.slice(0, 20), { key: (row) => row.name, empty: "None is saved yet." });
  showDeadlocks();
}

function ending(row) {
  const how = row.ending || {};
  const words = [row.error, how.signal, how.code ? `exit code ${how.code}` : "", row.line || how.line].filter(Boolean);
  return words.length ? ` (${words.join(", ")})` : "";
}

// Errors, holders of locks, limits, verdicts that are over: each shown when there is any.
function showCauses() {
  part("failures", [
    text("Exception", (row) => `${row.name}: ${row.message}`),
    text("at", (row) => row.line, "text mono"),
    text("Route", (row) => row.route, "text mono"),
    number("times", (row) => whole(row.count)),
    number("last 15 s", (row) => whole(row.recent)),
    number("since", (row) => clock(row.first_at)),
  ], view.failures.slice(0, 15), (row) => `${row.name}${row.line}${row.route}`, (row) => (row.recent ? "watch" : ""));
  part("holders", [
    text("Lock wanted at", (row) => row.wanted_at || row.taken_at, "text mono"),
    number("queue", (row) => whole(row.count)),
    number("longest", (row) => seconds(row.longest_seconds)),
    text("held by", (row) => [row.route, row.taken_at].filter(Boolean).join(" at "), "text mono"),
    text("which waits for", (row) => [STATE_WORDS[row.state] || row.state, row.detail, row.line && `at ${row.line}`].filter(Boolean).join(" "), "text mono"),
  ], [...view.executors.map(asHolder), ...view.holders].slice(0, 10), (row) => `${row.worker}${row.wanted_at}${row.taken_at}`);
  part("queries", [
    text("Route", (row) => row.route, "text mono"),
    number("queries each", (row) => (row.per_request ? Math.round(row.per_request) : "–")),
    text("most at", (row) => row.line, "text mono"),
    text("Statement", (row) => row.statement, "text mono"),
  ], view.queries.slice(0, 10), (row) => `${row.line}${row.route}`);
  part("limits", [
    text("Limit", (row) => row.name),
    text("now", (row) => row.now),
  ], limits(), (row) => row.name);
}

function part(name, columns, rows, key, levelOf = () => "") {
  $(`${name}-section`).hidden = !rows.length;
  table(name, columns, rows, { key, levelOf });
}

const asHolder = (row) => ({ ...row, wanted_at: `executor ${row.name || ""} of ${row.size} threads`, count: row.queued, taken_at: "", longest_seconds: null });
const size = (value) => (value >= 1e9 ? `${(value / 1e9).toFixed(1)} GB` : megabytes(value));

function limits() {
  const found = view.limits || {};
  const memory = found.memory;
  const grown = found.growth;
  return [
    ...(found.descriptors || []).map((row) => ({ name: `File descriptors of worker ${row.worker}`, now: `${whole(row.used)} of ${row.limit > 1e9 ? "any number" : whole(row.limit)}` })),
    ...(found.disks || []).map((row) => ({ name: `Disk of ${row.path}`, now: `${size(row.free_bytes)} of ${size(row.total_bytes)} free` })),
    ...(memory ? [{ name: "Memory", now: `${size(memory.available_bytes)} of ${size(memory.limit_bytes)} left` + (grown ? `; grows by ${size(grown.bytes_per_second)}/s, full in ${seconds(grown.until_full_seconds)}` : "") }] : []),
  ];
}

// What goes on is counted when it is over; until then it stands above what was.
function stallsNow() {
  return view.stalls.now.map((row) => ({ ...row, now: `now ${row.worker}`, line: row.line || `worker ${row.worker}, not told yet` }));
}

function recordingLink(cell, row) {
  if (!cell.firstChild) cell.append(make("a", { href: `/recordings/${encodeURIComponent(row.name)}` }, new Date(row.at * 1000).toLocaleString()));
}

function showDeadlocks() {
  $("locks-section").hidden = !view.deadlocks.length;
  const wanted = view.deadlocks.flatMap((deadlock) => [
    ["p", `Worker ${deadlock.worker}, for ${seconds(deadlock.since_seconds)}, ${whole(deadlock.waiting || deadlock.members.length)} waiting${deadlock.waiting > deadlock.members.length ? `, the first ${deadlock.members.length} of them` : ""}:`],
    ...deadlock.members.flatMap((member) => [
      ["h3", `${member.route || member.request || "a thread"} waits for ${member.lock}${member.taken_at ? `, taken at ${member.taken_at} by ${member.waits_for_route || member.waits_for || "a thread"}` : ""}`],
      ["pre", (member.stack || []).join("\n")],
    ]),
  ]);
  // What is the same stays: somebody may be selecting it.
  const parent = $("locks");
  while (parent.children.length > wanted.length) parent.lastChild.remove();
  wanted.forEach(([tag, words], at) => {
    let element = parent.children[at];
    if (!element || element.localName !== tag) {
      const made = make(tag, tag === "pre" ? { tabindex: "0" } : {});
      if (element) element.replaceWith(made);
      else parent.append(made);
      element = made;
    }
    say(element, words);
  });
}

function workersInWords(total) {
  const serve = `${whole(total.workers_serving)} of ${whole(total.workers)} workers serve`;
  return total.workers_blocked ? `${serve}, ${whole(total.workers_blocked)} blocked` : serve;
}

function show() {
  const about = view.about;
  say($("server"), `${(about.bind || []).join(", ")} · ${about.app || ""} · ${workersInWords(view.total)}`);
  showVerdict(view.verdict);
  showSaturation(view.saturation);
  showTiles(view.total, view.history);
  showLatency(view.total);
  showRoutes(view.routes);
  showInFlight();
  showRest();
}

// --- where the news come from ---

// A stream while somebody looks. A browser has only six connections for one server, so a page in the background asks now
// and then instead, for its title; so does one that is refused a stream, which only so many can have.
const ASK_MS = 2000;
const ASK_HIDDEN_MS = 10000;
const ASKS_PER_STREAM = 10;
let events = null;
let timer = 0;
let turn = 0; // who begins anew ends what went on before
let asked = 0;
let why = "";

function take(words) {
  const news = JSON.parse(words);
  if (!news.verdict) return;
  view = news;
  heardAt = Date.now();
  show();
  document.dispatchEvent(new Event("view"));
}

function begin() {
  if (events) events.close();
  clearTimeout(timer);
  events = null;
  turn += 1;
  asked = 0;
  if (document.hidden) ask();
  else listen();
}

function listen() {
  const stream = (events = new EventSource("/events"));
  stream.onmessage = (message) => {
    why = "";
    take(message.data);
  };
  stream.onerror = () => {
    // Where the answer is no stream (too many watch, the token has changed) the browser gives up by itself.
    if (stream === events && stream.readyState === EventSource.CLOSED) {
      events = null;
      ask();
    }
  };
}

async function ask() {
  asked += 1;
  const mine = turn;
  try {
    const response = await fetch("/view");
    why = response.ok ? (document.hidden ? "" : "too many pages watch already") : response.status === 401 ? "a token is needed; load this page again" : `the ops process answers ${response.status}`;
    if (response.ok) take(await response.text());
  } catch (error) {
    why = `the ops process does not answer (${error.message})`;
  }
  if (mine !== turn) return;
  const isLooking = !document.hidden && asked % ASKS_PER_STREAM === 0;
  timer = setTimeout(isLooking ? listen : ask, document.hidden ? ASK_HIDDEN_MS : ASK_MS);
}

document.addEventListener("visibilitychange", () => {
  if (!document.hidden) heardAt = Date.now(); // a moment for the news to come
  begin();
});

setInterval(() => {
  const silent = Math.round((Date.now() - heardAt) / 1000);
  const how = why ? `asked every ${ASK_MS / 1000} s: ${why}` : "live";
  say($("clock"), view ? (silent > (events ? 2 : 4) ? `${silent} s old` : `${how}, ${clock(view.at)}`) : "");
  // In the background timers may run once a minute.
  if (silent > (document.hidden ? 90 : 5)) {
    showVerdict({ level: "bad", cause: "silent", others: [], sentence: `No news for ${silent} s: the ops process does not answer.`,
      do: `${why ? `Now: ${why}. ` : ""}The server has stopped, this machine can't reach it, or more than six of its pages are open in this browser. `
        + "What stands below is old. This page goes on by itself." });
  }
}, 1000);

$("filter").addEventListener("input", () => view && showInFlight());
$("record").addEventListener("click", async () => {
  say($("record-said"), "Asking the workers…");
  try {
    const response = await fetch("/recordings", { method: "POST", headers: { "X-Greenroom": "1" } });
    say($("record-said"), response.ok ? "Saved." : "It could not be saved; the log of the server says why.");
  } catch (error) {
    say($("record-said"), `Not saved: ${error.message}`);
  }
});
begin();
