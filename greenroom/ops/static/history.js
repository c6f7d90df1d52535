// The last hours and days, and the other hosts. Shares the helpers of drawing.js, which is loaded before.
"use strict";

const RANGES = { "3 hours": 3 * 3600, "24 hours": 86400, "7 days": 7 * 86400 };
const HISTORY_MS = 30000;
const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 900, HEIGHT = 150, LEFT = 52, BOTTOM = 20, TOP = 8;
const PLOTS = [
  { name: "Requests/s", lines: { answered: (row, step) => row.requests / step, failed: (row, step) => row.errors / step, "turned away": (row, step) => row.shed / step }, form: (value) => rate(value) },
  { name: "Time to answer", lines: { "50 %": (row) => row.p50, "95 %": (row) => row.p95, "99 %": (row) => row.p99 }, form: (value) => seconds(value) },
  { name: "Busiest worker's CPU", lines: { CPU: (row) => row.cpu_ratio }, form: percent, most: 1 },
];
let range = "3 hours";

function svg(name, attributes, ...children) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

const moment = (at) => {
  const date = new Date(at * 1000);
  const time = date.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
  return range === "7 days" ? `${date.toLocaleDateString([], { weekday: "short" })} ${time}` : time;
};

// One plot: axes with numbers, incidents as bands behind the lines, a gap where nothing is known.
function plot({ name, lines, form, most }, data) {
  const { since, until, step, samples } = data;
  const x = (at) => LEFT + ((at - since) / (until - since)) * (WIDTH - LEFT - 8);
  const values = samples.flatMap((row) => Object.values(lines).map((of) => of(row, step) || 0));
  const top = most || niceTop(Math.max(...values, 1e-9));
  const y = (value) => TOP + (1 - Math.min(value, top) / top) * (HEIGHT - TOP - BOTTOM);
  const drawing = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": `${name}, ${range}: ${inShort(lines, samples, step, form)}` });
  for (const incident of data.incidents) {
    const from = Math.max(x(incident.began), LEFT);
    const width = Math.max(2, x(Math.min(incident.ended ?? until, until)) - from);
    drawing.append(svg("rect", { x: from, y: TOP, width, height: HEIGHT - TOP - BOTTOM, class: "band", "data-level": incident.level }, svg("title", {}, incident.sentence)));
  }
  for (let part = 0; part <= 2; part += 1) {
    const value = (top * part) / 2;
    drawing.append(svg("line", { x1: LEFT, x2: WIDTH - 8, y1: y(value), y2: y(value), class: "grid" }));
    drawing.append(svg("text", { x: LEFT - 6, y: y(value) + 4, "text-anchor": "end" }, form(value)));
  }
  for (let part = 0; part <= 6; part += 1) {
    const at = since + ((until - since) * part) / 6;
    const anchor = part === 0 ? "start" : part === 6 ? "end" : "middle";
    drawing.append(svg("text", { x: x(at), y: HEIGHT - 5, "text-anchor": anchor }, moment(at)));
  }
  for (const mark of data.marks) {
    drawing.append(svg("line", { x1: x(mark.at), x2: x(mark.at), y1: TOP, y2: HEIGHT - BOTTOM, class: "mark" }, svg("title", {}, `${moment(mark.at)} ${mark.text}`)));
  }
  Object.values(lines).forEach((of, index) => {
    let path = "";
    let last = -Infinity;
    for (const row of samples) {
      const value = of(row, step);
      if (value === null || value === undefined) continue;
      path += `${row.at - last > 2.5 * step ? "M" : "L"}${x(row.at).toFixed(1)} ${y(value).toFixed(1)}`;
      last = row.at;
    }
    if (path) drawing.append(svg("path", { d: path, class: `line line-${index}` }));
  });
  const legend = make("p", { className: "quiet" }, make("b", {}, name), " ");
  Object.keys(lines).forEach((words, index) => legend.append(make("span", { className: `key-line key-line-${index}` }, words), " "));
  return make("div", { className: "plot" }, legend, drawing);
}

function niceTop(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((times) => times * power).find((candidate) => candidate >= value) || value;
}

function inShort(lines, samples, step, form) {
  if (!samples.length) return "nothing known";
  return Object.entries(lines).map(([name, of]) => `${name} at most ${form(Math.max(...samples.map((row) => of(row, step) || 0)))}`).join(", ");
}

async function showHistory() {
  const until = Date.now() / 1000;
  let data;
  try {
    const response = await fetch(`/history?since=${(until - RANGES[range]).toFixed(0)}&until=${until.toFixed(0)}`);
    if (!response.ok) throw new Error(`the ops process answers ${response.status}`);
    data = await response.json();
  } catch (error) {
    say($("history-said"), `The history can't be shown: ${error.message}`);
    return;
  }
  say($("history-said"), data.failure || (data.samples.length ? "" : "Nothing is known of this time yet."));
  $("history-plots").replaceChildren(...PLOTS.map((each) => plot(each, data)));
  showEvents(data, until);
  await showDayBefore(data, until);
}

function showEvents(data, until) {
  const incidents = data.incidents.slice().reverse().slice(0, 30);
  table("incidents", [
    text("From", (row) => moment(row.began)),
    text("To", (row) => (row.ended ? moment(row.ended) : "now")),
    number("Lasted", (row) => seconds((row.ended ?? until) - row.began)),
    text("What was wrong", (row) => row.sentence),
  ], incidents, { key: (row) => row.key, levelOf: (row) => (row.ended ? "" : row.level) });
  table("marks", [text("At", (row) => moment(row.at)), text("What", (row) => row.text)],
    data.marks.slice().reverse().slice(0, 30), { key: (row) => `${row.at} ${row.text}` });
}

// Each route's last hour beside the same hour of the day before.
async function showDayBefore(data, until) {
  const hour = 3600, day = 86400;
  const response = await fetch(`/history?since=${(until - day - hour).toFixed(0)}&until=${(until - day).toFixed(0)}`);
  const before = response.ok ? (await response.json()).routes : [];
  const now = data.routes.filter((row) => row.at >= until - hour);
  const rows = [...new Set(now.map((row) => row.route))].map((name) => ({ name, now: sum(now, name), before: sum(before, name) }));
  rows.sort((one, other) => other.now.count - one.now.count);
  showRows(rows);
}

function showRows(rows) {
  table("yesterday", [
    text("Route", (row) => row.name),
    number("Requests", (row) => whole(row.now.count)),
    number("a day before", (row) => (row.before.count ? whole(row.before.count) : "–")),
    number("Mean", (row) => seconds(row.now.mean)),
    number("a day before", (row) => (row.before.count ? seconds(row.before.mean) : "–")),
    number("95 %", (row) => seconds(row.now.p95)),
    number("a day before", (row) => (row.before.count ? seconds(row.before.p95) : "–")),
    number("Failed", (row) => percent(row.now.errors / (row.now.count || 1))),
  ], rows.slice(0, 30), { key: (row) => row.name, empty: "Routes are written down every 5 minutes.",
    levelOf: (row) => (row.before.count >= 20 && row.now.count >= 20 && row.now.mean > 2 * row.before.mean ? "watch" : "") });
}

function sum(rows, name) {
  const own = rows.filter((row) => row.route === name);
  const count = own.reduce((total, row) => total + row.count, 0);
  const spent = own.reduce((total, row) => total + row.seconds, 0);
  const errors = own.reduce((total, row) => total + row.errors, 0);
  return { count, errors, mean: count ? spent / count : 0, p95: own.length ? Math.max(...own.map((row) => row.p95 || 0)) : null };
}

function showHosts(hosts) {
  $("hosts-section").hidden = !hosts.length;
  table("hosts", [
    { name: "Host", className: "text", show: (cell, row) => {
      if (cell.firstChild && cell.dataset.url === row.url) return;
      cell.dataset.url = row.url;
      cell.replaceChildren(row.url ? make("a", { href: row.url, rel: "noreferrer" }, row.host) : row.host);
    } },
    text("Verdict", (row) => row.sentence),
    number("Requests/s", (row) => rate(row.requests_rate)),
    number("Workers", (row) => `${row.workers_serving} of ${row.workers}`),
  ], hosts, { key: (row) => row.host, levelOf: (row) => (row.level === "ok" ? "" : row.level) });
}

for (const name of Object.keys(RANGES)) {
  const button = make("button", { type: "button", "aria-pressed": String(name === range) }, name);
  button.addEventListener("click", () => {
    range = name;
    for (const each of $("history-ranges").children) each.setAttribute("aria-pressed", String(each.textContent === name));
    showHistory();
  });
  $("history-ranges").append(button);
}
document.addEventListener("view", () => showHosts(view.hosts || []));
// Tables have their heads from the start, for whoever listens to the page.
showHosts([]);
showEvents({ incidents: [], marks: [] }, 0);
showRows([]);
setInterval(() => document.hidden || showHistory(), HISTORY_MS);
showHistory();
