// The parts of the ops page: shows each view that comes. Shares the helpers of drawing.js.
"use strict";

let announced = "";

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
    ...(memory && memory.limit_bytes ? [{ name: "Memory", now: `${size(memory.available_bytes)} of ${size(memory.limit_bytes)} left` + (grown ? `; grows by ${size(grown.bytes_per_second)}/s, full in ${seconds(grown.until_full_seconds)}` : "") }] : []),
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
