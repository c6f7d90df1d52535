// One board, live: draws each result the moment the server sends it. Without this file the page still works,
// with the button "Fetch now".
"use strict";

const BARS = 30;
const BAR_WIDTH = 4;
const CHART_HEIGHT = 28;
const PREVIEW_CHARACTERS = 4000;
const QUARTERS = [1, 1.5, 2, 2.5, 3, 4, 5, 7.5];
const NAMES = {
  200: "OK", 201: "Created", 202: "Accepted", 204: "No Content", 301: "Moved Permanently", 302: "Found",
  304: "Not Modified", 400: "Bad Request", 401: "Unauthorized", 403: "Forbidden", 404: "Not Found",
  429: "Too Many Requests", 500: "Internal Server Error", 502: "Bad Gateway", 503: "Service Unavailable",
  504: "Gateway Timeout",
};

const board = document.querySelector("[data-board]");
const rows = new Map();
for (const element of board.querySelectorAll(".source")) {
  rows.set(element.dataset.name, {element, elapsed: 0, arrived: false});
}
const status = board.querySelector("[data-status]");
const together = board.querySelector("[data-together]");
const apart = board.querySelector("[data-apart]");
const ticks = board.querySelector("[data-ticks]");
const isStill = matchMedia("(prefers-reduced-motion: reduce)");

let events = null;
let startedAt = 0;
let scale = scaleFor(0);

document.querySelector("[data-fetch]").addEventListener("submit", (event) => {
  event.preventDefault();
  start();
});
if (!board.dataset.done) {
  start();
}

function start() {
  if (events) {
    events.close();
  }
  startedAt = performance.now();
  scale = scaleFor(0);
  for (const row of rows.values()) {
    row.arrived = false;
    show(row, "waiting", "waiting");
    part(row, "message").hidden = true;
    part(row, "details").hidden = true;
    part(row, "bar").setAttribute("width", "0");
    part(row, "elapsed").textContent = "";
  }
  together.textContent = apart.textContent = "…";
  status.textContent = `Asking ${rows.size} ${rows.size === 1 ? "source" : "sources"} …`;
  drawScale();

  events = new EventSource(board.dataset.stream);
  events.addEventListener("source", (event) => arrive(JSON.parse(event.data)));
  events.addEventListener("done", (event) => finish(JSON.parse(event.data)));
  // An EventSource would connect again by itself, and so fetch everything once more.
  events.addEventListener("error", fail);
  requestAnimationFrame(grow);
}

function arrive(result) {
  const row = rows.get(result.name);
  if (!row) {
    return; // added by somebody since this page was loaded
  }
  row.arrived = true;
  row.elapsed = result.elapsed_ms;
  if (result.error !== undefined) {
    show(row, "error", "error");
    part(row, "message").textContent = result.error;
    part(row, "message").hidden = false;
  } else {
    show(row, result.status < 400 ? "ok" : "bad", `${result.status} ${NAMES[result.status] || ""}`.trim());
    part(row, "body").textContent = preview(result.body);
    part(row, "details").hidden = false;
  }
  part(row, "elapsed").textContent = duration(row.elapsed);
  addToChart(row, result);
  stretch(row.elapsed);
  drawBar(row);
  const arrived = [...rows.values()].filter((each) => each.arrived);
  status.textContent = `${arrived.length} of ${rows.size} sources after ${duration(row.elapsed)}.`;
  apart.textContent = duration(arrived.reduce((sum, each) => sum + each.elapsed, 0));
}

function finish(end) {
  events.close();
  const arrived = [...rows.values()].filter((row) => row.arrived).length;
  together.textContent = duration(end.elapsed_ms);
  status.textContent = `${arrived} of ${rows.size} sources came back in ${duration(end.elapsed_ms)}.`;
  board.dataset.done = end.elapsed_ms;
}

function fail() {
  events.close();
  for (const row of rows.values()) {
    if (!row.arrived) {
      show(row, "idle", "not fetched");
    }
  }
  together.textContent = "–";
  status.textContent = "The connection was lost before all sources came back. Press “Fetch now” to try again.";
  board.dataset.done = "lost";
}

// The bars of those still out grow with the time that passes.
function grow() {
  if (events.readyState === EventSource.CLOSED) {
    return;
  }
  const now = performance.now() - startedAt;
  together.textContent = duration(Math.round(now));
  if (!isStill.matches) {
    stretch(now);
    for (const row of rows.values()) {
      if (!row.arrived) {
        row.elapsed = now;
        drawBar(row);
      }
    }
  }
  requestAnimationFrame(grow);
}

// The axis grows with what it has to show.
function stretch(ms) {
  const before = scale;
  scale = Math.max(scale, scaleFor(ms));
  if (scale !== before) {
    drawScale();
    rows.forEach(drawBar);
  }
}

// Where the axis ends, as in app/main/pages.py: four round quarters.
function scaleFor(ms) {
  for (let unit = 10; ; unit *= 10) {
    const quarter = QUARTERS.find((each) => 4 * each * unit >= ms);
    if (quarter) {
      return 4 * quarter * unit;
    }
  }
}

function drawScale() {
  [...ticks.children].forEach((tick, index) => {
    tick.textContent = duration(scale * (index + 1) / 4);
  });
}

function drawBar(row) {
  const isShown = row.arrived || !isStill.matches;
  part(row, "bar").setAttribute("width", isShown ? `${Math.min(100, 100 * row.elapsed / scale)}%` : "0");
}

function addToChart(row, result) {
  const svg = row.element.querySelector("[data-chart]");
  const points = svg.dataset.chart.split(" ").filter(Boolean).map(Number);
  const isOk = result.error === undefined && result.status < 400;
  points.push(isOk ? result.elapsed_ms : -Math.max(1, result.elapsed_ms));
  const shown = points.slice(-BARS);
  svg.dataset.chart = shown.join(" ");
  const longest = Math.max(1, ...shown.map(Math.abs));
  const bars = shown.map((point, index) => {
    const rect = document.createElementNS("http://www.w3.org/2000/svg", "rect");
    const height = Math.max(2, CHART_HEIGHT * Math.abs(point) / longest);
    const place = {x: (BARS - shown.length + index) * BAR_WIDTH, y: CHART_HEIGHT - height, width: BAR_WIDTH - 1, height, rx: 1};
    Object.entries(place).forEach(([name, value]) => rect.setAttribute(name, value));
    if (point < 0) {
      rect.setAttribute("class", "failed");
    }
    return rect;
  });
  svg.querySelector("g").replaceChildren(...bars);
  const failed = shown.filter((point) => point < 0).length;
  const fetches = shown.length === 1 ? "fetch" : `${shown.length} fetches`;
  const summary = `Last ${fetches}: typically ${Math.round(median(shown.map(Math.abs)))} ms, ${failed} failed`;
  svg.setAttribute("aria-label", summary);
  svg.querySelector("title").textContent = summary;
}

function median(numbers) {
  const sorted = [...numbers].sort((a, b) => a - b);
  const middle = Math.floor(sorted.length / 2);
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

function show(row, state, chip) {
  row.element.dataset.state = state;
  part(row, "chip").textContent = chip;
}

function part(row, name) {
  return row.element.querySelector(`[data-${name}]`);
}

function preview(body) {
  const text = typeof body === "string" ? body : JSON.stringify(body, null, 2);
  return text.length > PREVIEW_CHARACTERS ? `${text.slice(0, PREVIEW_CHARACTERS)}\n…` : text;
}

function duration(ms) {
  return ms < 1000 ? `${ms} ms` : `${(ms / 1000).toFixed(2)} s`;
}
