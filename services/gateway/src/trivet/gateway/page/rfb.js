// The viewer's side of RFB 3.8 (RFC 6143), as VNC speaks it: bytes in, pictures and bytes out. Pure.
//
// It is for the screen of a VM through the gateway, where the ticket was the password: it takes a
// server that asks for none. It knows raw and copied rectangles and a screen that changes its size,
// which QEMU always can; the way to the server is a local network. What it keeps is bounded by the
// size of the screen.
"use strict";

const SIDE_MAX = 8192;
const TEXT_MAX = 1 << 20;
const RAW = 0;
const COPY = 1;
const RESIZED = -223;

// `to` is told: send(bytes), size(width, height, name), picture(x, y, width, height, rgba),
// copy(fromX, fromY, x, y, width, height), bell().
class Rfb {
  constructor(to) {
    this.to = to;
    this.came = []; // what has not been understood yet
    this.length = 0;
    this.width = 0;
    this.height = 0;
    this.steps = this.talk();
    this.needs = this.steps.next().value;
  }

  // Raises Error where the other side speaks something else.
  feed(bytes) {
    this.came.push(bytes);
    this.length += bytes.length;
    while (this.length >= this.needs) this.needs = this.steps.next(this.take(this.needs)).value;
  }

  take(count) {
    const taken = new Uint8Array(count);
    let have = 0;
    while (have < count) {
      const first = this.came[0];
      const part = first.subarray(0, count - have);
      taken.set(part, have);
      have += part.length;
      if (part.length === first.length) this.came.shift();
      else this.came[0] = first.subarray(part.length);
    }
    this.length -= count;
    return new View(taken);
  }

  // The whole conversation: it yields how many bytes it has to have next.
  *talk() {
    const version = (yield 12).text(0, 12);
    if (!/^RFB 003\.\d{3}\n$/.test(version)) throw new Error("this is not a screen");
    this.to.send(new TextEncoder().encode("RFB 003.008\n"));
    const kinds = (yield 1).u8(0);
    if (kinds === 0) throw new Error(yield* this.reason());
    if (!(yield kinds).bytes.includes(1)) throw new Error("the screen asks for a password");
    this.to.send(Uint8Array.of(1));
    if ((yield 4).u32(0) !== 0) throw new Error(yield* this.reason());
    this.to.send(Uint8Array.of(1)); // others may look, too
    const init = yield 24;
    const name = yield* this.text(init.u32(20));
    this.resize(init.u16(0), init.u16(2), name);
    this.to.send(message(0, 0, 0, 0, 32, 24, 0, 1, 0, 255, 0, 255, 0, 255, 0, 8, 16, 0, 0, 0));
    this.to.send(message(2, 0, ...two(3), ...four(COPY), ...four(RAW), ...four(RESIZED)));
    this.ask(0);
    for (;;) yield* this.one();
  }

  *reason() {
    return yield* this.text((yield 4).u32(0));
  }

  *text(length) {
    if (length > TEXT_MAX) throw new Error("the screen says too much");
    return (yield length).text(0, length);
  }

  *one() {
    const kind = (yield 1).u8(0);
    if (kind === 0) {
      const rectangles = (yield 3).u16(1);
      for (let n = 0; n < rectangles; n++) yield* this.rectangle();
      this.ask(1);
    } else if (kind === 1) yield (yield 5).u16(3) * 6; // colours of a map, which we do not use
    else if (kind === 2) this.to.bell();
    else if (kind === 3) yield* this.text((yield 7).u32(3)); // a clipboard
    else throw new Error(`the screen says what nobody understands (${kind})`);
  }

  *rectangle() {
    const head = yield 12;
    const [x, y, width, height] = [head.u16(0), head.u16(2), head.u16(4), head.u16(6)];
    const how = head.i32(8);
    if (how === RESIZED) {
      this.resize(width, height, null);
      return;
    }
    if (x + width > this.width || y + height > this.height) throw new Error("a picture outside of the screen");
    if (how === COPY) {
      const from = yield 4;
      this.to.copy(from.u16(0), from.u16(2), x, y, width, height);
    } else if (how === RAW) {
      const pixels = (yield width * height * 4).bytes;
      for (let i = 3; i < pixels.length; i += 4) pixels[i] = 255; // the fourth byte says nothing
      if (pixels.length) this.to.picture(x, y, width, height, pixels);
    } else throw new Error(`a picture that nobody asked for (${how})`);
  }

  resize(width, height, name) {
    if (width > SIDE_MAX || height > SIDE_MAX) throw new Error("the screen is too large");
    [this.width, this.height] = [width, height];
    this.to.size(width, height, name);
  }

  ask(changes) {
    this.to.send(message(3, changes, 0, 0, 0, 0, ...two(this.width), ...two(this.height)));
  }

  key(down, keysym) {
    this.to.send(message(4, down ? 1 : 0, 0, 0, ...four(keysym)));
  }

  pointer(buttons, x, y) {
    const inside = (at, size) => Math.max(0, Math.min(Math.trunc(at), size - 1));
    this.to.send(message(5, buttons, ...two(inside(x, this.width)), ...two(inside(y, this.height))));
  }
}

class View {
  constructor(bytes) {
    this.bytes = bytes;
    this.numbers = new DataView(bytes.buffer);
  }

  u8(at) { return this.numbers.getUint8(at); }
  u16(at) { return this.numbers.getUint16(at); }
  u32(at) { return this.numbers.getUint32(at); }
  i32(at) { return this.numbers.getInt32(at); }
  text(from, to) { return new TextDecoder().decode(this.bytes.subarray(from, to)); }
}

const message = (...bytes) => Uint8Array.from(bytes);
const two = (number) => [number >> 8, number];
const four = (number) => [number >> 24, number >> 16, number >> 8, number];

const NAMED = {
  Backspace: 0xff08, Tab: 0xff09, Enter: 0xff0d, Escape: 0xff1b, Delete: 0xffff, Home: 0xff50,
  ArrowLeft: 0xff51, ArrowUp: 0xff52, ArrowRight: 0xff53, ArrowDown: 0xff54, PageUp: 0xff55,
  PageDown: 0xff56, End: 0xff57, Insert: 0xff63, Shift: 0xffe1, Control: 0xffe3, CapsLock: 0xffe5,
  Meta: 0xffeb, Alt: 0xffe9, AltGraph: 0xfe03, Pause: 0xff13, ScrollLock: 0xff14, NumLock: 0xff7f,
  ContextMenu: 0xff67, PrintScreen: 0xff61,
};

// X's number of a key that was pressed, or null where it has none.
function keysym(key) {
  if (Object.hasOwn(NAMED, key)) return NAMED[key];
  const f = /^F(\d{1,2})$/.exec(key);
  if (f) return 0xffbd + Number(f[1]);
  const letters = Array.from(key);
  if (letters.length !== 1) return null;
  const code = key.codePointAt(0);
  return code < 0x100 ? code : 0x01000000 + code;
}

if (typeof module !== "undefined") module.exports = { Rfb, keysym };
