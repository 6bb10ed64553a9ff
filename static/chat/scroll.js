// Where the reader is in the conversation: at its end (then the end is followed), or further up (then nothing moves).
const NEAR = 60;

export class Scroll {
  #follow = true;

  constructor(onTop) {
    this.box = document.getElementById("scroll");
    this.thread = document.getElementById("thread");
    this.down = document.getElementById("down");
    this.box.addEventListener("scroll", () => {
      this.#follow = this.#distance() < NEAR;
      this.down.hidden = this.#distance() < 2 * NEAR;
      if (this.box.scrollTop < 600) onTop();
    }, { passive: true });
    this.down.addEventListener("click", () => this.toEnd());
    const observer = new ResizeObserver(() => this.#keep());
    observer.observe(this.thread);
    observer.observe(this.box);
  }

  toEnd() {
    this.#follow = true;
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
