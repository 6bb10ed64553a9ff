// Runs before the first paint, so that no page flashes in the other theme. The choice ("light", "dark", or none: as the
// system) lives in localStorage; <html data-theme> always says which of the two is shown.
(() => {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const stored = () => {
    try {
      return localStorage.getItem("theme") || "";
    } catch {
      return ""; // storage may be forbidden; the system's theme is then right
    }
  };
  const apply = () => {
    const choice = stored();
    document.documentElement.dataset.theme = choice || (dark.matches ? "dark" : "light");
    document.documentElement.dataset.themeChoice = choice || "system";
  };
  dark.addEventListener("change", apply);
  addEventListener("storage", apply);
  addEventListener("themechoice", apply);
  apply();
})();
