// Keeps the parts of a console page that carry data-live="key" up to date: asks the page's live source every few seconds
// and replaces a part only when its content has changed, so that nothing flashes and no open menu or selection is lost.

const PERIOD = 4000;
const tag = document.querySelector("script[data-source]");
const source = tag.dataset.source;
let lost = null;

function showLost(isLost) {
    if (isLost && !lost) {
        lost = document.createElement("p");
        lost.className = "c-lost";
        lost.setAttribute("role", "status");
        lost.textContent = tag.dataset.lost;
        document.body.append(lost);
    } else if (!isLost && lost) {
        lost.remove();
        lost = null;
    }
}

function apply(html) {
    const fresh = new DOMParser().parseFromString(html, "text/html");
    for (const part of fresh.querySelectorAll("[data-live]")) {
        const shown = document.querySelector(`[data-live="${CSS.escape(part.dataset.live)}"]`);
        if (shown && shown.innerHTML !== part.innerHTML && !shown.contains(document.activeElement)) {
            shown.innerHTML = part.innerHTML;
        }
    }
}

async function refresh() {
    if (document.hidden) {
        return;
    }
    try {
        const answer = await fetch(source, { headers: { "X-Requested-With": "live" }, signal: AbortSignal.timeout(10000) });
        if (answer.redirected) {
            location.reload(); // logged out meanwhile: the page itself leads to the login
            return;
        }
        if (answer.ok) {
            apply(await answer.text());
        }
        showLost(!answer.ok);
    } catch {
        showLost(true);
    }
}

async function loop() {
    await refresh();
    setTimeout(loop, PERIOD);
}

if (source) {
    setTimeout(loop, PERIOD);
    document.addEventListener("visibilitychange", () => document.hidden || refresh());
}
