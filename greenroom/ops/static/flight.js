// Requests in flight: together, one by one, and each with its stacks. Shares the helpers of drawing.js.
"use strict";

let order = { key: "age_seconds", down: true };
const MOST_ROWS = 25;
const MOST_FILTERED = 100;

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

$("filter").addEventListener("input", () => view && showInFlight());
