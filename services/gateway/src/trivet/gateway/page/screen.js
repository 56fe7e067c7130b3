// The screen page: what a VM shows, and its keyboard and pointer, in the browser.
"use strict";

const canvas = byId("picture");
const paper = canvas.getContext("2d", { alpha: false });
const held = new Map(); // which key is down, and as what it was sent
let viewer = null;

function place(event) {
  const box = canvas.getBoundingClientRect();
  return [
    ((event.clientX - box.left) * canvas.width) / box.width,
    ((event.clientY - box.top) * canvas.height) / box.height,
  ];
}

// RFB counts left, middle, right; the browser left, right, middle.
const buttons = (bits) => (bits & 1) | ((bits & 4) >> 1) | ((bits & 2) << 1);

function point(event, more = 0) {
  event.preventDefault();
  viewer?.pointer(buttons(event.buttons) | more, ...place(event));
}

function release() {
  for (const sent of held.values()) viewer?.key(false, sent);
  held.clear();
}

function press(keysyms) {
  for (const one of keysyms) viewer?.key(true, one);
  for (const one of [...keysyms].reverse()) viewer?.key(false, one);
}

whenJoined("vnc", (line, name) => {
  held.clear();
  viewer = new Rfb({
    send: (bytes) => {
      if (line.readyState === WebSocket.OPEN) line.send(bytes);
    },
    size: (width, height) => {
      [canvas.width, canvas.height] = [width, height];
      say(`the screen of ${name}, ${width} x ${height}`);
    },
    picture: (x, y, width, height, rgba) => {
      paper.putImageData(new ImageData(new Uint8ClampedArray(rgba.buffer), width, height), x, y);
    },
    copy: (fromX, fromY, x, y, width, height) => {
      paper.drawImage(canvas, fromX, fromY, width, height, x, y, width, height);
    },
    bell: () => {},
  });
  line.onopen = () => canvas.focus();
  line.onmessage = (came) => {
    try {
      viewer.feed(new Uint8Array(came.data));
    } catch (error) {
      line.onclose = null;
      line.close();
      byId("sign-in").hidden = false;
      byId("hang-up").hidden = true;
      say(error.message);
    }
  };
});
canvas.addEventListener("keydown", (key) => {
  const sent = keysym(key.key);
  if (sent === null) return;
  key.preventDefault();
  held.set(key.code, sent);
  viewer?.key(true, sent);
});
canvas.addEventListener("keyup", (key) => {
  const sent = held.get(key.code);
  if (sent === undefined) return;
  key.preventDefault();
  held.delete(key.code);
  viewer?.key(false, sent);
});
canvas.addEventListener("blur", release);
for (const what of ["pointermove", "pointerup"]) canvas.addEventListener(what, (event) => point(event));
canvas.addEventListener("pointerdown", (event) => {
  canvas.focus();
  canvas.setPointerCapture(event.pointerId);
  point(event);
});
canvas.addEventListener("contextmenu", (event) => event.preventDefault());
canvas.addEventListener("wheel", (event) => {
  point(event, event.deltaY < 0 ? 8 : 16);
  point(event);
}, { passive: false });
byId("three-keys").addEventListener("click", () => {
  press(["Control", "Alt", "Delete"].map(keysym));
  canvas.focus();
});
