// The websocket of the page. It comes back by itself; "up" and "down" are told, and each message from the server as "event".
const FIRST_WAIT = 500;
const LONGEST_WAIT = 15000;
const NOT_AUTHENTICATED = 4401;
const SILENCE = 8000; // a connection attempt that takes longer is given up

export class ChatSocket extends EventTarget {
  #socket = null;
  #wait = FIRST_WAIT;
  #timer = null;

  constructor(path) {
    super();
    this.url = `${location.protocol === "https:" ? "wss" : "ws"}://${location.host}${path}`;
    addEventListener("online", () => this.#retryNow());
    addEventListener("offline", () => this.#socket?.close());
    document.addEventListener("visibilitychange", () => {
      if (!document.hidden) this.#retryNow();
    });
  }

  get up() {
    return this.#socket?.readyState === WebSocket.OPEN;
  }

  open() {
    clearTimeout(this.#timer);
    const socket = new WebSocket(this.url);
    this.#socket = socket;
    const patience = setTimeout(() => socket.close(), SILENCE);
    socket.addEventListener("open", () => {
      clearTimeout(patience);
      this.#wait = FIRST_WAIT;
      this.dispatchEvent(new Event("up"));
    });
    socket.addEventListener("message", (event) => {
      this.dispatchEvent(new CustomEvent("event", { detail: JSON.parse(event.data) }));
    });
    socket.addEventListener("close", (event) => {
      clearTimeout(patience);
      if (socket !== this.#socket) return;
      const loggedOut = event.code === NOT_AUTHENTICATED;
      this.dispatchEvent(new CustomEvent("down", { detail: loggedOut }));
      if (loggedOut) return; // asking again would not change that
      this.#timer = setTimeout(() => this.open(), this.#wait * (0.7 + 0.6 * Math.random()));
      this.#wait = Math.min(this.#wait * 2, LONGEST_WAIT);
    });
  }

  // False when there is no connection: nothing was sent, and nothing will be later.
  send(message) {
    if (!this.up) return false;
    this.#socket.send(JSON.stringify(message));
    return true;
  }

  #retryNow() {
    if (!this.#socket || this.#socket.readyState !== WebSocket.CLOSED) return;
    this.#wait = FIRST_WAIT;
    this.open();
  }
}
