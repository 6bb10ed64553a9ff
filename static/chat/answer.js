// One answer on the page, from waiting to its last word.
import { decimal, number, text } from "./texts.js";

const RUNNING = "running";
// Text goes on in the last of these inside the HTML made so far; anything else gets a paragraph of its own.
const LINES = /^(P|LI|TD|TH|H[1-6]|CODE|PRE|BLOCKQUOTE)$/;

export function decorate(root) {
  for (const block of root.querySelectorAll(".code")) {
    if (block.querySelector("[data-copy-code]")) continue;
    const button = document.createElement("button");
    button.type = "button";
    button.className = "icon-button small";
    button.dataset.copyCode = "";
    button.title = text("copy_code");
    button.setAttribute("aria-label", text("copy_code"));
    button.innerHTML = '<svg class="icon small" aria-hidden="true"><use href="#i-copy"/></svg>';
    block.append(button);
    block.querySelector("pre").tabIndex = 0; // it scrolls sideways, by keyboard too
  }
}

// A sequence number counts characters (code points) up to the end of a piece, so a piece can be cut at any other number.
function after(seen, piece) {
  const letters = [...piece.text];
  const known = seen - (piece.seq - letters.length);
  return known > 0 ? { seq: piece.seq, text: letters.slice(known).join("") } : piece;
}

// The white space right before a sequence number; null when none of the pieces reaches there.
function gapAt(seq, pieces) {
  let said = null;
  for (const piece of pieces) {
    const rest = piece.seq <= seq ? "" : after(seq, piece).text;
    if (rest.length < piece.text.length) said = piece.text.slice(0, piece.text.length - rest.length);
  }
  return said && said.match(/\s*$/)[0];
}

export class Answer {
  #tail = null; // the element whose text deltas go to; the cursor blinks at its end
  #pending = []; // deltas newer than the HTML shown: {seq, text}
  #gap = ""; // the space that Markdown cut off at the end of the HTML shown
  #firstRender = true;

  constructor(element, speech = null) {
    this.element = element;
    this.speech = speech;
    this.seq = Number(element.dataset.seq) || 0;
    this.prose = element.querySelector(".prose");
    if (this.running) this.phase(text("waiting"));
  }

  get id() {
    return this.element.dataset.id;
  }

  get running() {
    return this.element.dataset.state === RUNNING;
  }

  get empty() {
    return !this.prose.textContent;
  }

  phase(words) {
    const line = this.element.querySelector(".phase");
    line.hidden = !words;
    line.querySelector(".phase-text").textContent = words;
  }

  // Each kind of message from the server that changes an answer has a method of its name.
  accepted(event) {
    this.element.dataset.id = event.message;
    this.element.dataset.state = RUNNING;
    this.phase(text("waiting"));
  }

  queued({ position, estimate_ms: estimate, loading }) {
    const values = { position: number(position), seconds: number(Math.ceil((estimate || 0) / 1000)) };
    if (loading && position === 1) this.phase(text("loading_seconds", values));
    else this.phase(text(estimate ? "queued_seconds" : "queued", values));
  }

  started({ model }) {
    this.model = model;
    if (this.empty) this.phase(text("prompt"));
  }

  progress({ phase, fraction }) {
    const known = typeof fraction === "number" && fraction > 0;
    const name = phase === "loading" ? "loading" : "prompt";
    this.phase(text(known ? `${name}_percent` : name, { percent: number(Math.round(fraction * 100)) }));
  }

  delta({ seq, text: words }) {
    if (seq <= this.seq) return;
    const fresh = after(this.seq, { seq, text: words });
    this.seq = seq;
    this.phase("");
    this.#pending.push(fresh);
    this.#tailElement().append(fresh.text);
    this.speech?.add(fresh.text);
  }

  reasoning({ seq, text: words }) {
    if (seq <= this.seq) return;
    this.phase("");
    const details = this.element.querySelector(".reasoning");
    if (details.hidden) details.open = true;
    details.hidden = false;
    details.querySelector(".reasoning-text").append(after(this.seq, { seq, text: words }).text);
    this.seq = seq;
  }

  render({ seq, html }) {
    this.seq = Math.max(this.seq, seq);
    this.phase("");
    const rest = this.#pending.filter((delta) => delta.seq > seq).map((delta) => after(seq, delta));
    this.#gap = gapAt(seq, this.#pending) ?? this.#gap;
    this.#pending = rest;
    this.#show(html);
    if (this.#firstRender) this.element.querySelector(".reasoning").open = false;
    this.#firstRender = false;
    if (this.running) this.#tailElement().append(this.#gap, ...this.#pending.map((delta) => delta.text));
  }

  done({ state, usage, timings, html, model, cut_to: cut }) {
    this.#end(state || "done");
    if (typeof html === "string") this.#show(html);
    this.element.querySelector(".stats").textContent = this.#facts(state, usage, timings, model || this.model);
    this.speech?.finish();
    if (cut) this.#tellCut();
  }

  error({ message, retry }) {
    this.#end("error");
    const failure = this.element.querySelector(".failure");
    failure.hidden = false;
    failure.querySelector(".failure-text").textContent = message || text("failed");
    failure.querySelector("[data-again]").hidden = retry === false;
    this.speech?.finish();
    this.speech?.say(message || text("failed"));
  }

  #tellCut() {
    const note = this.element.querySelector(".cut");
    note.hidden = false;
    this.speech?.say(note.textContent);
  }

  #end(state) {
    this.phase("");
    this.#tail?.replaceWith(...this.#tail.childNodes); // the text stays, without a cursor
    this.#pending = [];
    this.element.dataset.state = state;
  }

  // Replaces only what differs from the front on: a selection higher up in the answer stays, and long answers stay cheap.
  #show(html) {
    this.#tail?.remove();
    const made = document.createElement("template");
    made.innerHTML = html;
    decorate(made.content);
    const fresh = [...made.content.childNodes];
    const shown = [...this.prose.childNodes];
    let same = 0;
    while (same < fresh.length && same < shown.length && fresh[same].isEqualNode(shown[same])) same += 1;
    for (const node of shown.slice(same)) node.remove();
    this.prose.append(...fresh.slice(same));
  }

  #tailElement() {
    if (this.#tail?.isConnected) return this.#tail;
    this.#tail = document.createElement("span");
    this.#tail.className = "tail";
    this.#lastLine().append(this.#tail);
    return this.#tail;
  }

  #lastLine() {
    let line = this.prose;
    while (line.lastElementChild && !line.lastElementChild.matches("span, a, em, strong, s, button, br, hr, code:not(pre code)")) {
      line = line.lastElementChild;
      if (line.matches(".code")) return line.querySelector("code");
    }
    if (LINES.test(line.tagName)) return line;
    return this.prose.appendChild(document.createElement("p"));
  }

  #facts(state, usage, timings, model) {
    const facts = [];
    if (state === "stopped") facts.push(text("stopped"));
    if (usage?.completion_tokens) facts.push(text("tokens", { n: number(usage.completion_tokens) }));
    if (timings?.tokens_per_second) facts.push(text("speed", { n: decimal(timings.tokens_per_second) }));
    if (Number.isFinite(timings?.first_token_ms)) facts.push(text("first", { n: decimal(timings.first_token_ms / 1000) }));
    if (model) facts.push(model);
    return facts.join(" · ");
  }
}
