// Which model answers. The states shown are fetched again when the menu opens, and while the chosen one is not ready.
const AGAIN = 3000;

export class ModelChoice {
  #timer = null;

  constructor() {
    this.menu = document.getElementById("model-menu");
    this.menu.addEventListener("menuopen", () => this.#refresh());
    this.menu.addEventListener("click", (event) => {
      const item = event.target.closest("[data-model]");
      if (item) this.choose(item.dataset.model);
    });
    this.#show();
  }

  get name() {
    return this.#checked()?.dataset.model || "";
  }

  // A name that is no longer known changes nothing.
  choose(name) {
    const wanted = this.menu.querySelector(`[data-model="${CSS.escape(name)}"]`);
    if (!wanted) return;
    for (const item of this.menu.querySelectorAll("[data-model]")) {
      item.setAttribute("aria-checked", String(item === wanted));
    }
    this.#show();
  }

  #checked() {
    return this.menu.querySelector('[aria-checked="true"]');
  }

  #show() {
    const { model, state = "", stateText = "" } = this.#checked()?.dataset || {};
    if (model) document.getElementById("model-name").textContent = model;
    document.getElementById("model-dot").dataset.state = state;
    document.getElementById("model-state").textContent = state === "ready" ? "" : stateText;
    clearTimeout(this.#timer);
    if (state !== "ready") this.#timer = setTimeout(() => this.#refresh(), AGAIN);
  }

  async #refresh() {
    try {
      const response = await fetch(`/chat/models?${new URLSearchParams({ model: this.name })}`);
      if (!response.ok || response.redirected) return;
      const html = await response.text();
      const focused = document.activeElement?.dataset.model;
      this.menu.innerHTML = html;
      if (focused) this.menu.querySelector(`[data-model="${CSS.escape(focused)}"]`)?.focus();
    } catch {
      // Without a connection the last known states stay; the page says that it is reconnecting.
    } finally {
      this.#show();
    }
  }
}
