// A short message at the bottom of the page, read out by screen readers, gone by itself.
export function toast(text) {
  const element = document.createElement("div");
  element.className = "toast";
  element.textContent = text;
  document.getElementById("toasts").append(element);
  setTimeout(() => element.remove(), 3500);
}
