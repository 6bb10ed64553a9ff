// What every page does: the theme switch, showing a password, copying from data-copy buttons.
import { copyText } from "./clipboard.js";
import { startMenus } from "./menu.js";
import { toast } from "./toast.js";

function startThemeChoice() {
  const groups = document.querySelectorAll("[data-theme-switch]");
  const show = () => {
    const choice = document.documentElement.dataset.themeChoice;
    for (const button of document.querySelectorAll("[data-theme-switch] button")) {
      button.setAttribute("aria-pressed", String(button.dataset.choice === choice));
    }
  };
  for (const group of groups) {
    group.addEventListener("click", (event) => {
      const button = event.target.closest("button");
      if (!button) return;
      const choice = button.dataset.choice;
      if (choice === "system") localStorage.removeItem("theme");
      else localStorage.setItem("theme", choice);
      dispatchEvent(new Event("themechoice"));
      show();
    });
  }
  addEventListener("storage", show);
  show();
}

function startReveal() {
  for (const button of document.querySelectorAll("[data-reveal]")) {
    button.addEventListener("click", () => {
      const input = document.getElementById(button.dataset.reveal);
      const shown = input.type === "password";
      input.type = shown ? "text" : "password";
      button.setAttribute("aria-pressed", String(shown));
      input.focus();
    });
  }
}

function startCopy() {
  for (const button of document.querySelectorAll("[data-copy]")) {
    button.addEventListener("click", async () => {
      await copyText(document.getElementById(button.dataset.copy).innerText);
      toast(button.dataset.copied);
    });
  }
}

// The server groups conversations and usage by day; only the browser knows where midnight is.
function tellTimezone() {
  const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;
  if (zone) document.cookie = `timezone=${zone}; path=/; max-age=31536000; samesite=lax`;
}

startThemeChoice();
startReveal();
startCopy();
startMenus();
tellTimezone();
