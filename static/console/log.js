// Follows the log of one replica on a model's page. Who scrolls up reads in peace: following stops until the end is reached again
// or “Follow” is pressed; it also stops while the page is hidden.

const panel = document.getElementById("log");
const lines = document.getElementById("log-lines");
const choice = document.getElementById("log-replica");
const said = document.getElementById("log-said");
const button = document.getElementById("log-follow");
const FIRST = 500; // lines asked for at the beginning
const MOST = 3000; // lines kept on the page
const NEAR_END = 24; // pixels

let stream = null;
let chosen = choice.value;
let count = 0;
let waiting = [];

function atEnd() {
    return lines.scrollHeight - lines.scrollTop - lines.clientHeight < NEAR_END;
}

function say(what) {
    const text = what ? said.dataset[what] : "";
    if (said.textContent !== text) {
        said.textContent = text;
    }
    button.hidden = what !== "paused";
}

// Lines that come together are shown together: each change of the page costs a layout.
function show() {
    const fresh = waiting;
    waiting = [];
    if (!fresh.length) {
        return;
    }
    count += fresh.length;
    lines.append(`${fresh.join("\n")}\n`);
    while (count > MOST && lines.childNodes.length > 1) {
        count -= lines.firstChild.data.split("\n").length - 1;
        lines.firstChild.remove();
    }
    lines.scrollTop = lines.scrollHeight;
}

function stop() {
    stream?.close();
    stream = null;
    waiting = [];
}

function follow() {
    stop();
    stream = new EventSource(`${panel.dataset.source}?follow=1&lines=${FIRST}&replica=${chosen}`);
    stream.addEventListener("open", () => {
        lines.replaceChildren(); // it begins with the last lines, also when the connection was lost in between
        count = 0;
        say("following");
    });
    stream.addEventListener("message", (event) => {
        waiting.push(JSON.parse(event.data).line);
        if (waiting.length === 1) {
            requestAnimationFrame(show);
        }
    });
    stream.addEventListener("error", () => {
        say("lost");
        if (stream?.readyState === EventSource.CLOSED) { // refused, as by a busy service: browsers try again only after a cut
            stop();
            setTimeout(() => stream || document.hidden || !atEnd() || follow(), 5000);
        }
    });
}

lines.addEventListener("scroll", () => {
    if (!atEnd() && stream) {
        stop();
        say("paused");
    } else if (atEnd() && !stream && !document.hidden && !button.hidden) {
        follow();
    }
});
button.addEventListener("click", () => {
    lines.scrollTop = lines.scrollHeight;
    follow();
    lines.focus();
});
choice.addEventListener("change", () => {
    chosen = choice.value;
    lines.replaceChildren();
    follow();
});
// live.js brings the replicas there are now; the one that is being read stays chosen.
new MutationObserver(() => { choice.value = chosen; }).observe(choice, { childList: true });
document.addEventListener("visibilitychange", () => {
    if (document.hidden) {
        stop();
    } else if (button.hidden) {
        follow();
    }
});
follow();
