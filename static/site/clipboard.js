// navigator.clipboard exists on https and localhost only; many services run on plain http inside a house, hence the old way too.
export async function copyText(text) {
  if (navigator.clipboard) {
    await navigator.clipboard.writeText(text);
    return;
  }
  copyByCommand((data) => data.setData("text/plain", text));
}

export async function copyElement(element) {
  const html = element.innerHTML;
  const text = element.innerText;
  if (navigator.clipboard && window.ClipboardItem) {
    const parts = { "text/html": html, "text/plain": text };
    const blobs = Object.entries(parts).map(([type, value]) => [type, new Blob([value], { type })]);
    await navigator.clipboard.write([new ClipboardItem(Object.fromEntries(blobs))]);
    return;
  }
  copyByCommand((data) => {
    data.setData("text/html", html);
    data.setData("text/plain", text);
  });
}

function copyByCommand(fill) {
  const listener = (event) => {
    event.preventDefault();
    fill(event.clipboardData);
  };
  document.addEventListener("copy", listener, { once: true });
  document.execCommand("copy");
  document.removeEventListener("copy", listener);
}
