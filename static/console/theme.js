// Light or dark is one choice for the whole service: the pages keep it as "theme" ("light", "dark", nothing: as the system),
// Unfold as "adminTheme". Runs before Unfold reads its own, and carries later changes back.
(() => {
    try {
        localStorage.setItem("adminTheme", JSON.stringify(localStorage.getItem("theme") || "auto"));
    } catch {
        return; // storage may be forbidden; each side then follows the system
    }
    const carryBack = () => {
        const choice = JSON.parse(localStorage.getItem("adminTheme") || '"auto"');
        if (choice === "auto") {
            localStorage.removeItem("theme");
        } else {
            localStorage.setItem("theme", choice);
        }
    };
    addEventListener("pagehide", carryBack);
    new MutationObserver(carryBack).observe(document.documentElement, { attributeFilter: ["class"] });
})();
