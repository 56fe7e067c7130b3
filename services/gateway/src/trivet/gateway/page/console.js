// The console page: a VM's serial line in the browser.
//
// The token is typed in, sent once for a ticket, and forgotten: the WebSocket is joined with the
// ticket, which is good once and for a short while. What the guest says is shown as text alone.
"use strict";

const COLUMNS = 80;
const ROWS = 24;

const byId = (id) => document.getElementById(id);
let line = null; // the open WebSocket
let terminal = null;
let drawing = false;

function say(text) {
  byId("state").textContent = text;
}

async function ticket(token, project, name) {
  const path = `/v1/projects/${encodeURIComponent(project)}/vms/${encodeURIComponent(name)}:console-ticket`;
  const headers = { Authorization: `Bearer ${token}`, "Content-Type": "application/json" };
  const reply = await fetch(path, { method: "POST", headers, body: "{}", cache: "no-store" });
  const told = await reply.json().catch(() => ({}));
  if (!reply.ok) throw new Error(told.detail || `the reply was ${reply.status}`);
  return told;
}

function draw() {
  if (drawing) return;
  drawing = true;
  requestAnimationFrame(() => {
    drawing = false;
    const screen = byId("screen");
    const atEnd = screen.scrollTop + screen.clientHeight >= screen.scrollHeight - 4;
    const { line: row, column } = terminal.cursor();
    const rows = terminal.text().split("\n");
    const at = (rows[row] ?? "").padEnd(column + 1);
    const mark = document.createElement("span");
    mark.className = "cursor";
    mark.textContent = at[column];
    const before = [...rows.slice(0, row), at.slice(0, column)].join("\n");
    const after = [at.slice(column + 1), ...rows.slice(row + 1)].join("\n");
    screen.replaceChildren(before, mark, after);
    if (atEnd) screen.scrollTop = screen.scrollHeight;
  });
}

function send(text) {
  if (line?.readyState === WebSocket.OPEN) line.send(new TextEncoder().encode(text));
}

function join(path, name) {
  const utf8 = new TextDecoder();
  terminal = new Terminal(COLUMNS, ROWS, send);
  const scheme = location.protocol === "https:" ? "wss" : "ws";
  line = new WebSocket(`${scheme}://${location.host}${path}`, "binary");
  line.binaryType = "arraybuffer";
  line.onopen = () => {
    say(`on the line of ${name}`);
    byId("screen").focus();
  };
  line.onmessage = (came) => {
    terminal.feed(utf8.decode(came.data, { stream: true }));
    draw();
  };
  line.onclose = (closed) => {
    say(closed.reason || "the line has ended");
    byId("sign-in").hidden = false;
    byId("hang-up").hidden = true;
  };
  draw();
}

byId("sign-in").addEventListener("submit", async (submitted) => {
  submitted.preventDefault();
  const [token, project, name] = ["token", "project", "vm"].map((id) => byId(id).value.trim());
  byId("token").value = "";
  say("connecting");
  try {
    const told = await ticket(token, project || "default", name);
    byId("sign-in").hidden = true;
    byId("hang-up").hidden = false;
    join(told.path, name);
  } catch (error) {
    say(error.message);
  }
});
byId("hang-up").addEventListener("click", () => line?.close());
byId("screen").addEventListener("keydown", (key) => {
  const text = spoken(key);
  if (text === null) return;
  key.preventDefault();
  send(text);
});
byId("screen").addEventListener("paste", (pasted) => {
  pasted.preventDefault();
  send(pasted.clipboardData.getData("text").replaceAll(/\r?\n/g, "\r"));
});
