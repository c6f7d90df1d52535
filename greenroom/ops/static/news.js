// Where the views of the ops page come from; page.js shows them.
"use strict";

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
let heardAt = Date.now();

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
