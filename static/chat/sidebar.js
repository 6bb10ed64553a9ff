// The list of conversations: search, more of it on scroll, rename, delete; a drawer on the phone.
import { closeMenu, openMenu } from "../site/menu.js";
import { toast } from "../site/toast.js";
import { text } from "./texts.js";

const PAUSE = 200; // after the last key before a search is made

export class Sidebar {
  #search = "";
  #fetching = null;
  #menuRow = null;

  constructor({ onOpen, onNew, onDeleted, onRenamed }) {
    this.handlers = { onOpen, onNew, onDeleted, onRenamed };
    this.aside = document.getElementById("sidebar");
    this.list = document.getElementById("list");
    this.scrim = document.getElementById("scrim");
    this.drawerButton = document.getElementById("drawer-button");
    this.observer = new IntersectionObserver((entries) => {
      if (entries.some((entry) => entry.isIntersecting)) this.#more();
    }, { root: this.list, rootMargin: "400px" });
    this.#startDrawer();
    this.#startLinks();
    this.#startSearch();
    this.#startRowMenu();
    this.#watchEnd();
  }

  row(id) {
    return this.list.querySelector(`.row[data-id="${CSS.escape(id)}"]`);
  }

  mark(id) {
    for (const link of this.list.querySelectorAll("[aria-current]")) link.removeAttribute("aria-current");
    if (id) this.row(id)?.querySelector("a").setAttribute("aria-current", "page");
  }

  running(id, isRunning) {
    this.row(id)?.classList.toggle("running", isRunning);
  }

  rename(id, title) {
    const link = this.row(id)?.querySelector("a");
    if (link) link.textContent = title;
  }

  // Puts a conversation at the top: it has just been used. While a search is shown the list stays what was found.
  raise(id, title) {
    if (this.#search) return;
    const row = this.row(id) || this.#newRow(id);
    row.querySelector("a").textContent = title || text("new_chat");
    const old = row.closest(".group");
    this.#today().prepend(row);
    if (old && !old.querySelector(".row")) old.remove();
  }

  closeDrawer() {
    if (!this.aside.classList.contains("open")) return;
    this.#drawer(false);
    this.drawerButton.focus();
  }

  #newRow(id) {
    const row = document.getElementById("row-template").content.firstElementChild.cloneNode(true);
    row.dataset.id = id;
    row.querySelector("a").href = `/chat/${id}`;
    return row;
  }

  #today() {
    this.list.querySelector(".list-empty")?.remove();
    const group = this.list.querySelector('.group[data-group="today"]');
    if (group) return group.querySelector("ul");
    const made = document.createElement("section");
    made.className = "group";
    made.dataset.group = "today";
    const heading = made.appendChild(document.createElement("h2"));
    heading.textContent = text("today");
    this.list.prepend(made);
    return made.appendChild(document.createElement("ul"));
  }

  #drawer(open) {
    this.aside.classList.toggle("open", open);
    this.scrim.hidden = !open;
    this.drawerButton.setAttribute("aria-expanded", String(open));
    document.getElementById("main").inert = open;
    if (open) document.getElementById("drawer-close").focus();
  }

  #startDrawer() {
    this.drawerButton.addEventListener("click", () => this.#drawer(true));
    this.scrim.addEventListener("click", () => this.closeDrawer());
    document.getElementById("drawer-close").addEventListener("click", () => this.closeDrawer());
    document.addEventListener("keydown", (event) => {
      if (event.key === "Escape") this.closeDrawer();
    });
  }

  // Plain clicks change the page in place; anything else (new tab, middle button) is a link like any other.
  #startLinks() {
    document.addEventListener("click", (event) => {
      if (event.button || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
      const link = event.target.closest("a");
      const row = link?.closest(".row");
      if (!row && !link?.matches("[data-new]")) return;
      event.preventDefault();
      this.closeDrawer();
      if (row) this.handlers.onOpen(row.dataset.id);
      else this.handlers.onNew();
    });
  }

  #startSearch() {
    const input = document.getElementById("search");
    let timer = null;
    const run = () => {
      clearTimeout(timer);
      if (input.value.trim() === this.#search) return;
      this.#search = input.value.trim();
      this.#load({ q: this.#search }, (nodes) => this.list.replaceChildren(...nodes));
    };
    input.addEventListener("input", (event) => {
      clearTimeout(timer);
      if (!event.isComposing) timer = setTimeout(run, PAUSE);
    });
    input.addEventListener("compositionend", () => {
      timer = setTimeout(run, PAUSE);
    });
    document.getElementById("search-form").addEventListener("submit", (event) => {
      event.preventDefault();
      run();
    });
  }

  #watchEnd() {
    this.observer.disconnect();
    const end = this.list.querySelector(".list-more");
    if (end) this.observer.observe(end);
    this.mark(document.getElementById("main").dataset.conversation);
  }

  #more() {
    const end = this.list.querySelector(".list-more");
    if (!end || this.#fetching) return;
    this.#load({ before: end.dataset.before, q: this.#search }, (nodes) => {
      end.remove();
      for (const node of nodes) this.#join(node);
    });
  }

  // The first group of a further page may be the last one shown.
  #join(node) {
    const same = node.dataset?.group && this.list.querySelector(`.group[data-group="${node.dataset.group}"]`);
    if (same) same.querySelector("ul").append(...node.querySelectorAll(".row"));
    else this.list.append(node);
  }

  async #load(query, place) {
    this.#fetching?.abort();
    const control = new AbortController();
    this.#fetching = control;
    try {
      const response = await fetch(`${this.list.dataset.url}?${new URLSearchParams(query)}`, { signal: control.signal });
      if (response.redirected) location.reload(); // logged out meanwhile
      if (!response.ok) throw new Error(response.status);
      const made = document.createElement("template");
      made.innerHTML = await response.text();
      place([...made.content.childNodes]);
    } catch (error) {
      if (error.name !== "AbortError") toast(text("load_failed"));
      return;
    } finally {
      if (this.#fetching === control) this.#fetching = null;
    }
    this.#watchEnd();
  }

  #startRowMenu() {
    const menu = document.getElementById("row-menu");
    this.list.addEventListener("click", (event) => {
      const button = event.target.closest("[data-row-menu]");
      if (!button) return;
      event.stopPropagation();
      const again = this.#menuRow === button.closest(".row") && !menu.hidden;
      closeMenu();
      if (again) return;
      this.#menuRow = button.closest(".row");
      openMenu(button, menu);
      const box = button.getBoundingClientRect();
      const top = Math.min(box.bottom + 4, innerHeight - menu.offsetHeight - 8);
      menu.style.top = `${top}px`;
      menu.style.left = `${Math.min(box.left, innerWidth - menu.offsetWidth - 8)}px`;
    });
    this.list.addEventListener("scroll", () => closeMenu(), { passive: true });
    for (const button of document.querySelectorAll("dialog [data-cancel]")) {
      button.addEventListener("click", () => button.closest("dialog").close(""));
    }
    this.#startRename();
    this.#startDelete();
  }

  #startRename() {
    const dialog = document.getElementById("rename-dialog");
    const input = document.getElementById("rename-input");
    document.getElementById("row-rename").addEventListener("click", () => {
      input.value = this.#menuRow.querySelector("a").textContent;
      dialog.returnValue = "";
      dialog.showModal();
      input.select();
    });
    dialog.addEventListener("close", async () => {
      const { id } = this.#menuRow.dataset;
      const response = dialog.returnValue === "yes" && (await this.#post(dialog, "rename"));
      if (!response) return;
      const title = await response.text();
      this.rename(id, title);
      this.handlers.onRenamed(id, title);
    });
  }

  #startDelete() {
    const dialog = document.getElementById("delete-dialog");
    document.getElementById("row-delete").addEventListener("click", () => {
      document.getElementById("delete-name").textContent = this.#menuRow.querySelector("a").textContent;
      dialog.returnValue = "";
      dialog.showModal();
    });
    dialog.addEventListener("close", async () => {
      const row = this.#menuRow;
      if (dialog.returnValue !== "yes" || !(await this.#post(dialog, "delete"))) return;
      const group = row.closest(".group");
      row.remove();
      if (group && !group.querySelector(".row")) group.remove();
      this.handlers.onDeleted(row.dataset.id);
    });
  }

  async #post(dialog, action) {
    const body = new FormData(dialog.querySelector("form"));
    try {
      const response = await fetch(`/chat/${this.#menuRow.dataset.id}/${action}`, { method: "POST", body });
      if (!response.ok) throw new Error(response.status);
      return response;
    } catch {
      toast(text("failed"));
      return null;
    }
  }
}
