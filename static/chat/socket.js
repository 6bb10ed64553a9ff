// The websocket of the page. It comes back by itself; "up" and "down" are told, and each message from the server as "event".
const FIRST_WAIT = 500;
const LONGEST_WAIT = 15000;
const NOT_AUTHENTICATED = 4401;
const SILENCE = 8000; // a connection attempt that takes longer is given up

export class ChatSocket extends EventTarget {
  #socket = null;
  #wait = FIRST_WAIT;
  #timer = null;
  #wanted = false;

  constructor(path) {
    super();
    this.url = `${location.protocol === "https:" ? "wss" : "ws"}://${location.host}${path}`;
    addEventListener("online", () => this.#retryNow());
    addEventListener("offline", () => this.#lost(this.#socket));
    document.addEventListener("visibilitychange", () => {
      if (!document.hidden) this.#retryNow();
    });
  }

  get up() {
    return this.#socket?.readyState === WebSocket.OPEN;
  }

  open() {
    clearTimeout(this.#timer);
    this.#wanted = true;
    const socket = new WebSocket(this.url);
    this.#socket = socket;
    const patience = setTimeout(() => socket.close(), SILENCE);
    socket.addEventListener("open", () => {
      clearTimeout(patience);
      if (socket !== this.#socket) return;
      this.#wait = FIRST_WAIT;
      this.dispatchEvent(new Event("up"));
    });
    socket.addEventListener("message", (event) => {
      if (socket !== this.#socket) return;
      this.dispatchEvent(new CustomEvent("event", { detail: JSON.parse(event.data) }));
    });
    socket.addEventListener("close", (event) => {
      clearTimeout(patience);
      this.#lost(socket, event.code);
    });
  }

  // Also before the browser says so: a close waits some ten seconds for the other side, which a cut line never lets answer.
  #lost(socket, code) {
    if (!socket || socket !== this.#socket) return;
    this.#socket = null;
    socket.close();
    const loggedOut = code === NOT_AUTHENTICATED;
    this.dispatchEvent(new CustomEvent("down", { detail: loggedOut }));
    if (loggedOut) return; // asking again would not change that
    this.#timer = setTimeout(() => this.open(), this.#wait * (0.7 + 0.6 * Math.random()));
    this.#wait = Math.min(this.#wait * 2, LONGEST_WAIT);
  }

  // False when there is no connection: nothing was sent, and nothing will be later.
  send(message) {
    if (!this.up) return false;
    this.#socket.send(JSON.stringify(message));
    return true;
  }

  #retryNow() {
    if (this.#socket || !this.#wanted) return;
    this.#wait = FIRST_WAIT;
    this.open();
  }
}
