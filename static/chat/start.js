// Runs right after the conversation's HTML, before the first paint: the end of it is what one wants to see.
document.getElementById("scroll").scrollTop = 1e9;
