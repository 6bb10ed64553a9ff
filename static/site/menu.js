// Menus: <button aria-haspopup="menu" aria-controls="id"> and <div id role="menu" hidden>. Arrow keys move, Escape closes and
// gives the focus back, a click elsewhere closes.
let open = null; // {button, menu}

export function closeMenu({ focus = false } = {}) {
  if (!open) return;
  const { button, menu } = open;
  open = null;
  menu.hidden = true;
  button.setAttribute("aria-expanded", "false");
  if (focus) button.focus();
}

export function openMenu(button, menu) {
  closeMenu();
  open = { button, menu };
  menu.hidden = false;
  button.setAttribute("aria-expanded", "true");
  menu.dispatchEvent(new CustomEvent("menuopen", { bubbles: true }));
  (menu.querySelector('[aria-checked="true"]') || items(menu)[0])?.focus();
}

function items(menu) {
  return [...menu.querySelectorAll('[role^="menuitem"]:not([disabled])')];
}

function move(event) {
  const list = items(open.menu);
  const at = list.indexOf(document.activeElement);
  const next = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: list.length - 1 }[event.key];
  if (next === undefined) return;
  event.preventDefault();
  list[(next + list.length) % list.length]?.focus();
}

export function startMenus() {
  document.addEventListener("click", (event) => {
    const button = event.target.closest('[aria-haspopup="menu"][aria-controls]');
    if (button) {
      const wasOpen = open?.button === button;
      if (wasOpen) closeMenu();
      else openMenu(button, document.getElementById(button.getAttribute("aria-controls")));
      return;
    }
    if (!open) return;
    const inside = open.menu.contains(event.target);
    if (!inside || event.target.closest('[role^="menuitem"]')) closeMenu();
  });
  document.addEventListener("keydown", (event) => {
    if (!open) return;
    if (event.key === "Escape") {
      event.stopPropagation();
      closeMenu({ focus: true });
    } else if (event.key === "Tab") closeMenu();
    else move(event);
  });
}
