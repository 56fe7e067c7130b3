// Signing in to a VM's console, of either kind.
//
// The token is typed in, sent once for a ticket, and forgotten: the WebSocket is joined with the
// ticket, which is good once and for a short while.
"use strict";

const byId = (id) => document.getElementById(id);

function say(text) {
  byId("state").textContent = text;
}

async function ticket(token, project, name, kind) {
  const path = `/v1/projects/${encodeURIComponent(project)}/vms/${encodeURIComponent(name)}:console-ticket`;
  const headers = { Authorization: `Bearer ${token}`, "Content-Type": "application/json" };
  const body = JSON.stringify({ kind });
  const reply = await fetch(path, { method: "POST", headers, body, cache: "no-store" });
  const told = await reply.json().catch(() => ({}));
  if (!reply.ok) throw new Error(told.detail || `the reply was ${reply.status}`);
  return told;
}

// Each time somebody signs in, `joined(line, name)` gets the WebSocket of the console of `kind`.
function whenJoined(kind, joined) {
  let line = null;
  byId("sign-in").addEventListener("submit", async (submitted) => {
    submitted.preventDefault();
    const [token, project, name] = ["token", "project", "vm"].map((id) => byId(id).value.trim());
    byId("token").value = "";
    say("connecting");
    try {
      const told = await ticket(token, project || "default", name, kind);
      byId("sign-in").hidden = true;
      byId("hang-up").hidden = false;
      const scheme = location.protocol === "https:" ? "wss" : "ws";
      line = new WebSocket(`${scheme}://${location.host}${told.path}`, "binary");
      line.binaryType = "arraybuffer";
      line.onclose = (closed) => {
        say(closed.reason || `the ${kind === "vnc" ? "screen" : "line"} has ended`);
        byId("sign-in").hidden = false;
        byId("hang-up").hidden = true;
      };
      joined(line, name);
    } catch (error) {
      say(error.message);
    }
  });
  byId("hang-up").addEventListener("click", () => line?.close());
}
