// Runs the status page's script under a document that knows just what the page uses, against the
// gateway at argv[2] with the token argv[3]; prints what the page shows, as JSON, once it is live
// and an event has come.
"use strict";
const fs = require("fs");
const [, , script, url, token] = process.argv;

class Element {
  constructor(name) { this.name = name; this.children = []; this.text = ""; this.handlers = {}; }
  get textContent() { return this.text + this.children.map((c) => c.textContent).join("\t"); }
  set textContent(text) { this.text = String(text); this.children = []; }
  set innerHTML(_) { throw new Error("markup from data"); }
  append(...more) { for (const c of more) { c.parent = this; this.children.push(c); } }
  replaceChildren(...more) { this.children = []; this.append(...more); }
  after(other) { other.parent = this.parent; const all = this.parent.children; all.splice(all.indexOf(this) + 1, 0, other); }
  get rows() { return this.children; }
  deleteRow(n) { this.children.splice(n, 1); }
  addEventListener(what, handler) { this.handlers[what] = handler; }
}
const elements = {};
globalThis.document = {
  createElement: (name) => new Element(name),
  getElementById: (id) => (elements[id] ??= new Element(id)),
  querySelector: () => (elements.main ??= new Element("main")),
};
const plain = globalThis.fetch;
globalThis.fetch = (path, more) => plain(url + path, { ...more, cache: undefined });
(0, eval)(fs.readFileSync(script, "utf8"));
document.getElementById("token").value = token;
document.getElementById("project").value = "";
document.getElementById("sign-in").handlers.submit({ preventDefault() {} });

const shown = (id) => document.getElementById(id).children.map((r) => r.textContent);
setInterval(() => {
  const state = document.getElementById("state").textContent;
  const done = (state === "live" && shown("events").length > 1 && shown("vms").length > 1) || /nothing/.test(state);
  if (!done) return;
  const tables = Object.fromEntries(["alarms", "nodes", "vms", "events"].map((id) => [id, shown(id)]));
  console.log(JSON.stringify({ state, token: document.getElementById("token").value, ...tables }));
  process.exit(0);
}, 50);
setTimeout(() => { console.log(JSON.stringify({ late: document.getElementById("state").textContent })); process.exit(1); }, 60000);
