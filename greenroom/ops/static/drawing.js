// How the ops page draws: tables, bars, numbers with units. Whatever is shown is text: nothing from outside is markup.
"use strict";

const $ = (id) => document.getElementById(id);
const STATE_WORDS = {
  cpu: "computing", running: "computing", ready: "ready, queued", upstream: "upstream", query: "query", pool: "database pool", dns: "DNS",
  offload: "offloaded", lock: "lock", sleep: "sleep", client: "client", other: "other",
};
let view = null; // the newest, see news.js

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
