// The messages on the page: questions and answers by id, pages of older ones, the question just sent and not yet accepted.
import { Answer, decorate } from "./answer.js";
import { text } from "./texts.js";

function copyOf(template) {
  return document.getElementById(template).content.firstElementChild.cloneNode(true);
}

export class Conversation {
  #loading = false;

  constructor(speech) {
    this.speech = speech;
    this.main = document.getElementById("main");
    this.thread = document.getElementById("thread");
    this.pending = null; // {client, text, question, answer, replaced}: sent, and not yet accepted
    this.stopWanted = false;
    this.#adopt();
  }

  get id() {
    return this.main.dataset.conversation;
  }

  set id(value) {
    this.main.dataset.conversation = value;
  }

  get running() {
    return this.answers.find((answer) => answer.running) || null;
  }

  get busy() {
    return Boolean(this.pending || this.running);
  }

  answer(id) {
    return this.answers.find((answer) => answer.id === id) || null;
  }

  at(element) {
    const article = element.closest(".answer");
    return this.answers.find((answer) => answer.element === article) || null;
  }

  // Shows another conversation; `html` is the fragment the server made of it, none for a new one.
  show(id, html = "") {
    this.id = id;
    this.pending = null;
    this.stopWanted = false;
    const page = this.#page(html);
    this.thread.replaceChildren(...(page?.childNodes || []));
    this.thread.dataset.before = page?.dataset.before || "";
    this.main.toggleAttribute("data-empty", !id);
    this.#adopt();
    return { title: page?.dataset.title || "", model: page?.dataset.model || "" };
  }

  async fetch(id, before = "") {
    const query = before ? `?before=${encodeURIComponent(before)}` : "";
    const response = await fetch(`/chat/${id}/messages${query}`);
    if (response.redirected) location.reload(); // logged out meanwhile
    if (!response.ok) throw new Error(String(response.status));
    return response.text();
  }

  async loadOlder(keepPlace) {
    const { before } = this.thread.dataset;
    if (!before || this.#loading) return;
    this.#loading = true;
    const { id } = this;
    try {
      const page = this.#page(await this.fetch(id, before));
      if (id !== this.id) return;
      decorate(page);
      const older = [...page.childNodes];
      keepPlace(() => this.thread.prepend(...older));
      this.thread.dataset.before = page.dataset.before;
      this.#adopt();
    } catch {
      // The next scroll tries again.
    } finally {
      this.#loading = false;
    }
  }

  ask(client, words) {
    const question = copyOf("question-template");
    question.querySelector(".bubble").textContent = words;
    const answer = this.#newAnswer();
    this.thread.append(question, answer.element);
    this.main.removeAttribute("data-empty");
    this.pending = { client, text: words, question, answer, replaced: null };
  }

  askAgain(client, old) {
    const answer = this.#newAnswer();
    old.element.replaceWith(answer.element);
    // Whatever came after the old answer belongs to it, not to the one that takes its place.
    const followers = [];
    while (answer.element.nextElementSibling) {
      followers.push(answer.element.nextElementSibling);
      answer.element.nextElementSibling.remove();
    }
    this.pending = { client, text: "", question: null, answer, replaced: [old.element, ...followers] };
  }

  accepted(event) {
    const { question, answer } = this.pending;
    this.pending = null;
    if (question) question.dataset.id = event.question;
    answer.accepted(event);
    this.#adopt([answer]);
    return answer;
  }

  // Takes back what was sent and not accepted. Returns the text, for the composer.
  takeBack() {
    const { text: words, question, answer, replaced } = this.pending;
    this.pending = null;
    this.stopWanted = false;
    question?.remove();
    if (replaced) answer.element.replaceWith(...replaced);
    else answer.element.remove();
    this.#adopt();
    this.main.toggleAttribute("data-empty", !this.id && !this.thread.childElementCount);
    return words;
  }

  #newAnswer() {
    const element = copyOf("answer-template");
    element.dataset.state = "sending";
    const answer = new Answer(element, this.speech);
    answer.phase(text("sending"));
    return answer;
  }

  #page(html) {
    const made = document.createElement("template");
    made.innerHTML = html;
    return made.content.firstElementChild;
  }

  // One Answer for each element; those that live on keep what they know.
  #adopt(also = []) {
    const known = new Map([...(this.answers || []), ...also].map((answer) => [answer.element, answer]));
    decorate(this.thread);
    this.answers = [...this.thread.querySelectorAll(".answer")].map(
      (element) => known.get(element) || new Answer(element, this.speech),
    );
  }
}
