// Reads an answer to screen readers sentence by sentence: a live region that changes with every token is unbearable.
const SENTENCE_END = /[.!?…。！？；][\s"'”’）)]*|\n+/g;
const KEPT = 20;

export class Speech {
  #region = document.getElementById("speech");
  #rest = "";

  add(text) {
    this.#rest += text;
    let end = 0;
    for (const match of this.#rest.matchAll(SENTENCE_END)) {
      // A full stop at the very end may be the middle of 3.14.
      if (match.index + match[0].length < this.#rest.length) end = match.index + match[0].length;
    }
    if (end) {
      this.say(this.#rest.slice(0, end));
      this.#rest = this.#rest.slice(end);
    }
  }

  finish() {
    this.say(this.#rest);
    this.#rest = "";
  }

  say(text) {
    const plain = text.replace(/[*_`#>|~]+/g, " ").trim();
    if (!plain) return;
    const line = document.createElement("p");
    line.textContent = plain;
    this.#region.append(line);
    while (this.#region.children.length > KEPT) this.#region.firstElementChild.remove();
  }
}
