// A small terminal: what a guest's serial line says, as lines of text with a cursor. Pure.
//
// It knows what shells, editors and pagers use: lines, the cursor's moves, erasing, and the
// question where the cursor is. Colours and what else there is are passed over. Nothing of it is
// markup, and what it keeps is bounded.
"use strict";

const KEPT_LINES = 2000;
const SEQUENCE_MAX = 256;

class Terminal {
  constructor(columns, rows, answer) {
    this.columns = columns;
    this.rows = rows;
    this.answer = answer; // called with what the terminal itself says to the guest
    this.lines = [[]];
    this.top = 0; // the screen's first line
    this.row = 0;
    this.column = 0;
    this.pending = ""; // the beginning of a sequence whose end has not come yet
  }

  feed(text) {
    for (const letter of text) {
      if (this.pending) this.sequence(letter);
      else if (letter === "\x1b") this.pending = letter;
      else this.letter(letter);
    }
  }

  text() {
    return this.lines.map((line) => Array.from(line, (c) => c ?? " ").join("")).join("\n");
  }

  cursor() {
    return { line: this.top + this.row, column: this.column };
  }

  letter(letter) {
    if (letter === "\n") this.down();
    else if (letter === "\r") this.column = 0;
    else if (letter === "\b") this.column = Math.max(0, this.column - 1);
    else if (letter === "\t") this.column = Math.min(this.columns - 1, (this.column | 7) + 1);
    else if (letter >= " " && letter !== "\x7f") this.put(letter);
  }

  put(letter) {
    if (this.column >= this.columns) {
      this.column = 0;
      this.down();
    }
    this.line()[this.column++] = letter;
  }

  line() {
    const at = this.top + this.row;
    while (this.lines.length <= at) this.lines.push([]);
    return this.lines[at];
  }

  down() {
    if (this.row < this.rows - 1) this.row++;
    else this.top++;
    this.line();
    const over = this.lines.length - KEPT_LINES;
    if (over > 0) {
      this.lines.splice(0, over);
      this.top -= over;
    }
  }

  // One letter more of an escape sequence.
  sequence(letter) {
    this.pending += letter;
    const so_far = this.pending;
    if (so_far.length > SEQUENCE_MAX) this.pending = "";
    else if (so_far[1] === "]") {
      if (letter === "\x07" || so_far.endsWith("\x1b\\")) this.pending = "";
    } else if (so_far[1] === "[") {
      if (so_far.length > 2 && letter >= "@" && letter <= "~") {
        this.pending = "";
        this.control(letter, so_far.slice(2, -1));
      }
    } else if (!"()#%".includes(so_far[1]) || so_far.length > 2) this.pending = "";
  }

  control(kind, said) {
    const numbers = said.split(";").map((n) => Number.parseInt(n, 10));
    const count = Math.min(numbers[0] || 1, 10000);
    if (kind === "A") this.row -= count;
    else if (kind === "B") this.row += count;
    else if (kind === "C") this.column += count;
    else if (kind === "D") this.column -= count;
    else if (kind === "G") this.column = count - 1;
    else if (kind === "H" || kind === "f") {
      this.row = count - 1;
      this.column = (numbers[1] || 1) - 1;
    } else if (kind === "K") this.erase_line(numbers[0] || 0);
    else if (kind === "J") this.erase_screen(numbers[0] || 0);
    else if (kind === "P") this.line().splice(this.column, count);
    else if (kind === "@") this.line().splice(this.column, 0, ...Array(count).fill(" "));
    else if (kind === "n" && numbers[0] === 6) this.answer(`\x1b[${this.row + 1};${this.column + 1}R`);
    this.row = Math.max(0, Math.min(this.row, this.rows - 1));
    this.column = Math.max(0, Math.min(this.column, this.columns));
    const line = this.line();
    if (line.length > this.columns) line.length = this.columns;
  }

  erase_line(which) {
    const line = this.line();
    if (which === 0) line.length = Math.min(line.length, this.column);
    else if (which === 1) line.fill(" ", 0, this.column + 1);
    else line.length = 0;
  }

  erase_screen(which) {
    this.line();
    const at = this.top + this.row;
    const [from, to] = which === 0 ? [at + 1, this.lines.length] : [this.top, which === 1 ? at : this.lines.length];
    for (let i = from; i < to; i++) this.lines[i] = [];
    if (which < 2) this.erase_line(which);
  }
}

// What a key says to the guest, or null where it says nothing.
function spoken(key) {
  const named = {
    Enter: "\r", Backspace: "\x7f", Tab: "\t", Escape: "\x1b", Delete: "\x1b[3~",
    ArrowUp: "\x1b[A", ArrowDown: "\x1b[B", ArrowRight: "\x1b[C", ArrowLeft: "\x1b[D",
    Home: "\x1b[H", End: "\x1b[F", PageUp: "\x1b[5~", PageDown: "\x1b[6~",
  };
  if (key.metaKey) return null;
  if (Object.hasOwn(named, key.key)) return named[key.key];
  if (Array.from(key.key).length !== 1) return null;
  if (key.ctrlKey) {
    const code = key.key.toUpperCase().charCodeAt(0);
    return code >= 64 && code < 96 ? String.fromCharCode(code & 31) : null;
  }
  return key.altKey ? `\x1b${key.key}` : key.key;
}

if (typeof module !== "undefined") module.exports = { Terminal, spoken };
