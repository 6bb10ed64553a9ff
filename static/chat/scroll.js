// Where the reader is in the conversation: at its end (then the end is followed), or further up (then nothing moves).
const NEAR = 60;
const AHEAD = 600; // older messages are fetched this far before their place comes into view

export class Scroll {
  #follow = true;
  #moved = false; // by the reader: the browser scrolls by itself too, when it learns how high a message really is

  constructor(onTop) {
    this.box = document.getElementById("scroll");
    this.thread = document.getElementById("thread");
    this.down = document.getElementById("down");
    this.box.addEventListener("scroll", () => {
      if (this.#distance() < NEAR) this.#moved = false;
      this.#follow = !this.#moved;
      this.down.hidden = this.#distance() < 2 * NEAR;
      if (this.#moved && this.box.scrollTop < AHEAD) onTop();
    }, { passive: true });
    for (const input of ["wheel", "touchmove", "pointerdown", "keydown"]) {
      this.box.addEventListener(input, () => {
        this.#moved = true;
        if (this.box.scrollTop < AHEAD) onTop(); // also where everything fits and nothing scrolls
      }, { passive: true });
    }
    this.down.addEventListener("click", () => this.toEnd());
    const observer = new ResizeObserver(() => this.#keep());
    observer.observe(this.thread);
    observer.observe(this.box);
  }

  toEnd() {
    this.#follow = true;
    this.#moved = false;
    this.box.scrollTop = this.box.scrollHeight;
    this.down.hidden = true;
  }

  // Runs a change above what the reader sees, without moving it.
  keepPlace(change) {
    const anchor = this.thread.firstElementChild;
    const before = anchor?.getBoundingClientRect().top;
    change();
    if (anchor) this.box.scrollTop += anchor.getBoundingClientRect().top - before;
  }

  #distance() {
    return this.box.scrollHeight - this.box.scrollTop - this.box.clientHeight;
  }

  #keep() {
    if (this.#follow) this.box.scrollTop = this.box.scrollHeight;
    else this.down.hidden = this.#distance() < 2 * NEAR;
  }
}
