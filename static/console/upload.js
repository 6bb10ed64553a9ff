// Sends a model file in pieces to the API. Where a piece is lost, the next try asks how far the service is and goes on there.

const form = document.getElementById("upload");
const progress = document.getElementById("upload-progress");
const said = document.getElementById("upload-said");
const token = document.querySelector("#act [name=csrfmiddlewaretoken]").value;
const TRIES = 5;
const WAIT = 2000;

async function ask(method, path, body, type = "application/json") {
    const answer = await fetch(`/api/v1/uploads${path}`, {
        method,
        body,
        headers: { "X-CSRFToken": token, ...(body === undefined ? {} : { "Content-Type": type }) },
    });
    const data = answer.status === 204 ? {} : await answer.json();
    if (!answer.ok) {
        const details = Object.values(data.error.details ?? {}).flat().filter((one) => typeof one === "string");
        throw Object.assign(new Error(details[0] || data.error.message), { code: data.error.code, details: data.error.details });
    }
    return data;
}

function known(file) {
    const stored = JSON.parse(sessionStorage.getItem("upload") || "null");
    return stored && stored.name === file.name && stored.size === file.size ? stored.id : "";
}

async function begin(file) {
    const id = known(file);
    if (id) {
        try {
            return await ask("GET", `/${id}`);
        } catch (error) {
            if (error.code !== "upload_not_found") throw error; // the line is still down: what is there stays to go on with
            sessionStorage.removeItem("upload");
        }
    }
    const made = await ask("POST", "", JSON.stringify({ fileName: file.name, size: file.size }));
    sessionStorage.setItem("upload", JSON.stringify({ id: made.id, name: file.name, size: file.size }));
    return made;
}

async function piece(upload, file, offset) {
    const part = file.slice(offset, offset + upload.chunkSize);
    return (await ask("PUT", `/${upload.id}?offset=${offset}`, part, "application/octet-stream")).offset;
}

async function send(file) {
    const upload = await begin(file);
    let offset = upload.offset;
    let failures = 0;
    while (offset < file.size) {
        progress.value = offset / file.size;
        try {
            offset = await piece(upload, file, offset);
            failures = 0;
        } catch (error) {
            failures += 1;
            if (error.code === "wrong_offset") {
                offset = error.details.offset;
            } else if (error.code || failures >= TRIES) {
                throw error;
            } else {
                await new Promise((resume) => { setTimeout(resume, WAIT * failures); });
            }
        }
    }
    progress.value = 1;
    const download = await ask("POST", `/${upload.id}/finish`, "{}");
    sessionStorage.removeItem("upload");
    return download.id;
}

// Unfold decorates every file field of a page and expects its own markup around it.
form.addEventListener("change", (event) => event.stopPropagation(), true);
form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const button = form.querySelector("button");
    button.disabled = true;
    progress.hidden = false;
    said.textContent = "";
    try {
        const download = await send(document.getElementById("upload-file").files[0]);
        said.textContent = form.dataset.sent;
        location.assign(form.dataset.next + download);
    } catch (error) {
        said.textContent = error.code ? error.message : form.dataset.failed;
    }
    button.disabled = false;
});
