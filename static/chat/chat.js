// The chat page: brings together the list, the messages, the field one writes in, and the websocket.
import { copyElement, copyText } from "../site/clipboard.js";
import { toast } from "../site/toast.js";
import { Composer } from "./composer.js";
import { Conversation } from "./conversation.js";
import { ModelChoice } from "./models.js";
import { Scroll } from "./scroll.js";
import { Sidebar } from "./sidebar.js";
import { ChatSocket } from "./socket.js";
import { Speech } from "./speech.js";
import { text } from "./texts.js";

const socket = new ChatSocket("/ws/chat");
const conversation = new Conversation(new Speech());
const scroll = new Scroll(() => conversation.loadOlder((change) => scroll.keepPlace(change)));
const models = new ModelChoice();
const composer = new Composer(send, stop);
const sidebar = new Sidebar({ onOpen: open, onNew: () => open(""), onDeleted, onRenamed });
const lineState = document.getElementById("line-state");
let wasUp = false;

// -- what the reader does --------------------------------------------------------------------------------------------
function send(words) {
  if (conversation.busy) {
    composer.note(text("busy"));
    return;
  }
  if (!models.name) {
    composer.note(text("no_model"));
    return;
  }
  const client = newId();
  const message = { type: "send", model: models.name, content: words, client_id: client };
  if (conversation.id) message.conversation = conversation.id;
  if (!socket.send(message)) {
    composer.note(text("not_sent"));
    return;
  }
  conversation.ask(client, words);
  composer.value = "";
  begun();
}

function again(answer) {
  if (conversation.busy) {
    composer.note(text("busy"));
    return;
  }
  const client = newId();
  if (!socket.send({ type: "regenerate", message: answer.id, client_id: client, model: models.name })) {
    composer.note(text("not_sent"));
    return;
  }
  conversation.askAgain(client, answer);
  begun();
}

function stop() {
  const { running, pending } = conversation;
  if (pending) conversation.stopWanted = true;
  else if (running) socket.send({ type: "stop", message: running.id });
  (pending?.answer || running)?.phase(text("stopping"));
}

function begun() {
  composer.note("");
  composer.busy(true);
  scroll.toEnd();
}

// `crypto.randomUUID` does not exist on plain http.
function newId() {
  return Array.from(crypto.getRandomValues(new Uint8Array(12)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

// -- which conversation is shown --------------------------------------------------------------------------------------
async function open(id, { push = true } = {}) {
  const address = id ? `/chat/${id}` : "/chat/";
  let html = "";
  try {
    html = id ? await conversation.fetch(id) : "";
  } catch {
    location.assign(address); // the server says what is wrong with it
    return;
  }
  if (push && location.pathname !== address) history.pushState(null, "", address);
  const { title, model } = conversation.show(id, html);
  named(title);
  if (model) models.choose(model);
  sidebar.mark(id);
  composer.switchTo(id);
  composer.busy(conversation.busy);
  scroll.toEnd();
  follow();
  composer.focusUnlessTouch();
}

function named(title) {
  const shown = title || text("new_chat");
  document.getElementById("chat-title").textContent = shown;
  document.title = `${shown} · LLM Platform`;
}

function onDeleted(id) {
  if (id === conversation.id) open("");
}

function onRenamed(id, title) {
  if (id === conversation.id) named(title);
}

function follow() {
  if (!conversation.id || !socket.up) return;
  const { running } = conversation;
  if (running) socket.send({ type: "resume", message: running.id, after: running.seq });
  socket.send({ type: "watch", conversation: conversation.id });
}

// -- what the server says ----------------------------------------------------------------------------------------------
const handlers = {
  accepted(event) {
    sidebar.raise(event.conversation, event.title);
    sidebar.running(event.conversation, true);
    if (conversation.pending && event.client_id === conversation.pending.client) {
      mine(event);
    } else if (event.conversation === conversation.id && !conversation.answer(event.message)) {
      refresh(); // asked in another tab
    }
  },
  title({ conversation: id, title }) {
    sidebar.rename(id, title);
    if (id === conversation.id) named(title);
  },
  done(event) {
    sidebar.running(event.conversation, false);
    conversation.answer(event.message)?.done(event);
    ended();
  },
  error(event) {
    sidebar.running(event.conversation, false);
    // An error's `message` is what a person reads, so the id has another name here.
    const { message_id: id, client_id: client, message: words } = event;
    if (id) conversation.answer(id)?.error(event);
    else if (client && client === conversation.pending?.client) refused(words);
    else if (client || conversation.id) composer.note(words);
    ended();
  },
};
for (const name of ["queued", "started", "progress", "delta", "reasoning", "render"]) {
  handlers[name] = (event) => conversation.answer(event.message)?.[name](event);
}

function mine(event) {
  const isNew = !conversation.id;
  conversation.accepted(event);
  if (isNew) {
    conversation.id = event.conversation;
    history.replaceState(null, "", `/chat/${event.conversation}`);
    composer.becomes(event.conversation);
    named(event.title);
  }
  sidebar.mark(event.conversation);
  if (conversation.stopWanted) stop();
  conversation.stopWanted = false;
}

function refused(words) {
  const taken = conversation.takeBack();
  if (taken && !composer.value) composer.value = taken;
  composer.note(words);
}

function ended() {
  composer.busy(conversation.busy);
}

// What the database has now, for what was missed or came from another tab.
async function refresh() {
  const { id } = conversation;
  try {
    const html = await conversation.fetch(id);
    if (id !== conversation.id || conversation.pending) return;
    conversation.show(id, html);
    composer.busy(conversation.busy);
    follow();
  } catch {
    composer.note(text("load_failed"));
  }
}

socket.addEventListener("event", ({ detail }) => handlers[detail.type]?.(detail));
socket.addEventListener("up", () => {
  lineState.hidden = true;
  conversation.main.dataset.line = "up";
  // After a cut the page may have missed the beginning of something; at the first connection it is just loaded.
  if (wasUp && conversation.id && !conversation.running) refresh();
  else follow();
  wasUp = true;
});
socket.addEventListener("down", ({ detail: loggedOut }) => {
  lineState.textContent = text(loggedOut ? "logged_out" : "reconnecting");
  lineState.hidden = false;
  conversation.main.dataset.line = "down";
  if (conversation.pending) refused(text("not_sent"));
  ended();
});

// -- clicks in the conversation ------------------------------------------------------------------------------------------
document.getElementById("thread").addEventListener("click", async (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  if (button.matches("[data-again]")) again(conversation.at(button));
  else if (button.matches("[data-copy-answer]")) await copied(button, copyElement(conversation.at(button).prose));
  else if (button.matches("[data-copy-code]")) {
    await copied(button, copyText(button.closest(".code").querySelector("code").textContent));
  }
});

async function copied(button, copying) {
  try {
    await copying;
    const use = button.querySelector("use");
    use.setAttribute("href", "#i-check");
    setTimeout(() => use.setAttribute("href", "#i-copy"), 1500);
    toast(text("copied"));
  } catch {
    toast(text("failed"));
  }
}

document.getElementById("suggestions").addEventListener("click", (event) => {
  const button = event.target.closest("[data-prompt]");
  if (!button) return;
  composer.value = button.dataset.prompt;
  composer.input.focus();
});

addEventListener("popstate", () => {
  const id = location.pathname.split("/")[2] || "";
  open(id, { push: false });
});

composer.switchTo(conversation.id);
composer.busy(conversation.busy);
if (conversation.id) sidebar.running(conversation.id, Boolean(conversation.running));
composer.focusUnlessTouch();
socket.open();
