// The field one writes in: grows with its text, keeps a draft for each conversation, knows Chinese input methods.
import { text } from "./texts.js";

const NEW = "new";

export class Composer {
  #key = NEW;
  #sending = true;

  constructor(onSend, onStop) {
    this.form = document.getElementById("composer");
    this.input = document.getElementById("input");
    this.sendButton = document.getElementById("send");
    this.stopButton = document.getElementById("stop");
    this.noteLine = document.getElementById("note");
    this.onSend = onSend;
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#submit();
    });
    this.stopButton.addEventListener("click", () => {
      this.input.focus();
      onStop();
    });
    this.input.addEventListener("input", () => {
      this.note("");
      this.#changed();
    });
    this.input.addEventListener("keydown", (event) => this.#onKey(event));
    addEventListener("online", () => this.#changed());
    addEventListener("offline", () => this.#changed());
  }

  get value() {
    return this.input.value;
  }

  set value(words) {
    this.input.value = words;
    this.#changed();
  }

  // Shows the draft of another conversation ("" is the one not begun yet).
  switchTo(conversation) {
    this.#key = conversation || NEW;
    this.note("");
    this.value = sessionStorage.getItem(`draft:${this.#key}`) || "";
  }

  // The draft goes with a conversation that has just been given its name.
  becomes(conversation) {
    sessionStorage.removeItem(`draft:${this.#key}`);
    this.#key = conversation;
    this.#changed();
  }

  // On a touch screen the keyboard would cover half of what was just opened.
  focusUnlessTouch() {
    if (matchMedia("(pointer: fine)").matches) this.input.focus();
  }

  busy(isBusy) {
    this.sendButton.hidden = isBusy;
    this.stopButton.hidden = !isBusy;
  }

  note(words) {
    this.noteLine.textContent = words;
    this.noteLine.hidden = !words;
  }

  #onKey(event) {
    // While an input method composes, Enter chooses a word; Safari says so by key code 229 only.
    if (event.key !== "Enter" || event.shiftKey || event.isComposing || event.keyCode === 229) return;
    event.preventDefault();
    this.#submit();
  }

  #submit() {
    if (!this.value.trim()) return;
    this.note(navigator.onLine ? "" : text("offline"));
    if (navigator.onLine) this.onSend(this.value.trim());
  }

  #changed() {
    const words = this.input.value;
    if (words) sessionStorage.setItem(`draft:${this.#key}`, words);
    else sessionStorage.removeItem(`draft:${this.#key}`);
    this.sendButton.disabled = !words.trim() || !navigator.onLine;
    if (!CSS.supports("field-sizing", "content")) {
      this.input.style.height = "auto";
      this.input.style.height = `${this.input.scrollHeight}px`;
    }
  }
}
