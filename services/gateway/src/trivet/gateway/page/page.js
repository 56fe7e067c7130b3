// The status page: nodes, VMs, alarms and events of a cluster, as they are and as they come.
//
// The token is typed in by the user and kept in this page's memory alone: a reload forgets it.
// Whatever comes from the cluster is shown as text, never as markup. Events wake a look at the
// lists, at most one a second; a stream that breaks is resumed after the last event that came.
"use strict";

const EVENTS_SHOWN = 100;
const LOOK_AGAIN_MS = 1000;
const RESYNC_MS = 30000;
const GOOD = new Set(["ready", "running", "cleared", "info"]);
const BAD = new Set(["failed", "critical", "raised"]);

const byId = (id) => document.getElementById(id);
let session = null; // {token, project, stop: AbortController, last: string | null}

function cell(text) {
  const td = document.createElement("td");
  td.textContent = text;
  if (GOOD.has(text)) td.className = "good";
  else if (BAD.has(text)) td.className = "bad";
  else if (["degraded", "unknown", "warning", "pending"].includes(text)) td.className = "unsure";
  return td;
}

function row(texts) {
  const tr = document.createElement("tr");
  tr.append(...texts.map((text) => cell(String(text ?? ""))));
  return tr;
}

function fill(table, heads, rows) {
  const head = document.createElement("tr");
  for (const text of heads) {
    const th = document.createElement("th");
    th.textContent = text;
    head.append(th);
  }
  table.replaceChildren(head, ...(rows.length ? rows : [row(["none"])]));
}

function say(text) {
  byId("state").textContent = text;
}

async function ask(path, more = {}) {
  const { token, stop } = session;
  const headers = { Authorization: `Bearer ${token}`, ...more };
  const reply = await fetch(path, { headers, signal: stop.signal, cache: "no-store" });
  if (!reply.ok) {
    const problem = await reply.json().catch(() => ({}));
    const error = new Error(problem.detail || `the reply was ${reply.status}`);
    error.status = reply.status;
    throw error;
  }
  return reply;
}

async function list(path) {
  const items = [];
  let cursor = null;
  do {
    const next = cursor ? `${path.includes("?") ? "&" : "?"}cursor=${encodeURIComponent(cursor)}` : "";
    const page = await (await ask(path + next)).json();
    items.push(...page.items);
    cursor = page.cursor;
  } while (cursor);
  return items;
}

const TABLES = [
  {
    table: "alarms",
    path: () => "/v1/alarms?label=state%3Draised",
    heads: ["Severity", "Alarm", "About", "Cause", "What to do"],
    row: (a) => [
      a.status.severity, a.status.title, about(a.status.subject), a.status.cause, a.status.remedy,
    ],
  },
  {
    table: "nodes",
    path: () => "/v1/nodes",
    heads: ["Node", "Phase", "vCPUs used", "Memory used", "Address"],
    row: (n) => [
      n.meta.name, n.status.phase, `${n.status.used_vcpus} of ${n.status.allocatable_vcpus}`,
      `${n.status.used_memory_mib} of ${n.status.allocatable_memory_mib} MiB`, n.status.address,
    ],
  },
  {
    table: "vms",
    path: () => (session.project ? `/v1/projects/${encodeURIComponent(session.project)}/vms` : "/v1/vms"),
    heads: ["Project", "VM", "Phase", "Power", "Node", "Addresses"],
    row: (v) => [
      v.meta.project, v.meta.name, v.status.phase, v.status.power, v.status.node,
      v.status.addresses.join(", "),
    ],
  },
];

function about(subject) {
  return subject ? [subject.kind, subject.project, subject.name].filter(Boolean).join(" ") : "";
}

async function look() {
  const mine = session;
  for (const { table, path, heads, row: cells } of TABLES) {
    try {
      const items = await list(path());
      if (mine !== session) return;
      fill(byId(table), heads, items.map((item) => row(cells(item))));
    } catch (error) {
      if (mine !== session) return;
      if (error.status === 401) return end("the token proves nothing (any more)");
      fill(byId(table), [], [row([error.message])]);
    }
  }
}

let waiting = null;
function lookSoon() {
  waiting ??= setTimeout(() => {
    waiting = null;
    if (session) look();
  }, LOOK_AGAIN_MS);
}

function showEvent(seq, event) {
  const table = byId("events");
  const what = event.type.replace(/^trivet\./, "").replace(/\.v1$/, "");
  const name = [event.data.project, event.data.name].filter(Boolean).join("/");
  table.rows[0].after(row([seq, event.time, what, name, event.data.phase]));
  while (table.rows.length > EVENTS_SHOWN + 1) table.deleteRow(-1);
}

async function follow() {
  const mine = session;
  while (mine === session) {
    try {
      const query = mine.project ? `?project=${encodeURIComponent(mine.project)}` : "";
      const reply = await ask(`/v1/events${query}`, mine.last ? { "Last-Event-ID": mine.last } : {});
      say("live");
      lookSoon();
      await read(reply.body.pipeThrough(new TextDecoderStream()).getReader(), mine);
    } catch (error) {
      if (mine !== session) return;
      if (error.status === 401) return end("the token proves nothing (any more)");
      say(`not live: ${error.message}`);
    }
    await new Promise((done) => setTimeout(done, LOOK_AGAIN_MS));
  }
}

async function read(reader, mine) {
  let text = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done || mine !== session) return;
    text += value;
    const parts = text.split("\n\n");
    text = parts.pop();
    for (const part of parts) {
      const id = /^id: (\d+)$/m.exec(part);
      const data = /^data: (.*)$/m.exec(part);
      if (!id || !data) continue;
      mine.last = id[1];
      showEvent(id[1], JSON.parse(data[1]));
      lookSoon();
    }
  }
}

function begin(token, project) {
  session = { token, project, stop: new AbortController(), last: null };
  fill(byId("events"), ["Number", "Time", "What", "Of", "Phase"], []);
  byId("events").deleteRow(-1);
  document.querySelector("main").hidden = false;
  byId("sign-in").hidden = true;
  byId("sign-out").hidden = false;
  say("connecting");
  look();
  follow();
}

function end(why) {
  session?.stop.abort();
  session = null;
  document.querySelector("main").hidden = true;
  byId("sign-in").hidden = false;
  byId("sign-out").hidden = true;
  say(why);
}

byId("sign-in").addEventListener("submit", (submitted) => {
  submitted.preventDefault();
  begin(byId("token").value.trim(), byId("project").value.trim());
  byId("token").value = "";
});
byId("sign-out").addEventListener("click", () => end("not connected"));
setInterval(() => session && lookSoon(), RESYNC_MS);
