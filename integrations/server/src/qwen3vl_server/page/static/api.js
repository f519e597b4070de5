// Requests to the server. If it wants an API key, the user is asked for one, which this tab keeps.

import { byId } from "./dom.js";

const KEY = "qwen3vl-api-key";

export class ServerError extends Error {}

export async function request(path, options = {}) {
  for (;;) {
    const response = await send(path, options);
    if (response.status === 401) {
      await askForKey(sessionStorage.getItem(KEY) !== null);
      continue;
    }
    const body = await readBody(response);
    if (!response.ok) throw new ServerError(body?.message ?? `The server answers with status ${response.status}.`);
    return body;
  }
}

async function send(path, options) {
  const headers = new Headers(options.headers);
  const key = sessionStorage.getItem(KEY);
  if (key !== null) headers.set("Authorization", `Bearer ${key}`);
  try {
    return await fetch(new URL(path, document.baseURI), { ...options, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ServerError("The server cannot be reached. Check that it runs, and try again.");
  }
}

async function readBody(response) {
  try {
    return await response.json();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    return null;
  }
}

let asking = null;

// Several requests may need a key at once: the user is asked once.
function askForKey(wasWrong) {
  asking ??= new Promise((resolve) => {
    const dialog = byId("key");
    byId("key-error").textContent = wasWrong ? "That key is not accepted." : "";
    byId("key-error").hidden = !wasWrong;
    byId("key-value").value = "";
    dialog.addEventListener("cancel", (event) => event.preventDefault());
    dialog.addEventListener(
      "close",
      () => {
        // Headers carry printable ASCII only; the server's keys are that.
        sessionStorage.setItem(KEY, byId("key-value").value.replace(/[^!-~]/g, ""));
        asking = null;
        resolve();
      },
      { once: true },
    );
    dialog.showModal();
  });
  return asking;
}
