// What Unfold's pages lack for the keyboard and for screen readers: the main landmark, names of scrolling regions, and links and
// icons that only a pointer could press.

const PRESSED_BY_POINTER_ONLY = "a[x-on\\:click]:not([href]), td span[x-on\\:click]";

function makePressable(element) {
    element.tabIndex = 0;
    element.setAttribute("role", "button");
    const label = element.closest("td")?.dataset.label;
    if (label) {
        element.setAttribute("aria-label", label); // an icon's text is its name in the font
    }
    element.addEventListener("keydown", (event) => {
        if (event.key === "Enter" || event.key === " ") {
            event.preventDefault();
            element.click();
        }
    });
}

addEventListener("load", () => {
    document.getElementById("main")?.setAttribute("role", "main");
    const title = document.querySelector("#header-inner h1")?.textContent.trim().replace(/\s+/g, " ");
    for (const region of document.querySelectorAll("#main [role=region][aria-label='scrollable content']")) {
        region.setAttribute("aria-label", title || "table");
    }
    document.querySelectorAll(PRESSED_BY_POINTER_ONLY).forEach(makePressable);
});
