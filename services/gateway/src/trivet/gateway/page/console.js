// The console page: a VM's serial line in the browser. What the guest says is shown as text alone.
"use strict";

const COLUMNS = 80;
const ROWS = 24;

let line = null; // the open WebSocket
let terminal = null;
let drawing = false;

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

whenJoined("serial", (joined, name) => {
  const utf8 = new TextDecoder();
  terminal = new Terminal(COLUMNS, ROWS, send);
  line = joined;
  line.onopen = () => {
    say(`on the line of ${name}`);
    byId("screen").focus();
  };
  line.onmessage = (came) => {
    terminal.feed(utf8.decode(came.data, { stream: true }));
    draw();
  };
  draw();
});
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
