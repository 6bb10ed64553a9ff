// Copy buttons: data-copy names the element whose text is copied, data-copied what the button then says.
import { copyText } from "../site/clipboard.js";

const SHOWN = 2500; // milliseconds

for (const button of document.querySelectorAll("[data-copy]")) {
    const label = button.textContent;
    button.addEventListener("click", async () => {
        const source = document.getElementById(button.dataset.copy);
        await copyText(source.value ?? source.textContent);
        button.textContent = button.dataset.copied;
        setTimeout(() => (button.textContent = label), SHOWN);
    });
}
