// Requests to the server. If it wants an API key, the user is asked for one, which this tab keeps.

import { byId } from "./dom.js";

const KEY = "qwen3vl-api-key";

export class ServerError extends Error {
  // `status` is 0 if there was no answer.
  constructor(message, status = 0) {
    super(message);
    this.status = status;
  }
}

export const request = (path, options = {}) => answerOf(() => send(path, options));

// Posts a form, and reports which part of it has been sent, from 0 to 1. `fetch` cannot tell.
export const upload = (path, form, onProgress) => answerOf(() => sendForm(path, form, onProgress));

async function answerOf(send) {
  for (;;) {
    const { status, body } = await send();
    if (status === 401) {
      await askForKey(sessionStorage.getItem(KEY) !== null);
      continue;
    }
    if (status >= 400) throw new ServerError(body?.message ?? `The server answers with status ${status}.`, status);
    return body;
  }
}

function authorization() {
  const key = sessionStorage.getItem(KEY);
  return key === null ? {} : { Authorization: `Bearer ${key}` };
}

async function send(path, options) {
  const headers = { ...options.headers, ...authorization() };
  try {
    const response = await fetch(new URL(path, document.baseURI), { ...options, headers });
    return { status: response.status, body: await readBody(response) };
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ServerError("The server cannot be reached. Check that it runs, and try again.");
  }
}

function sendForm(path, form, onProgress) {
  const sending = new XMLHttpRequest();
  sending.open("POST", new URL(path, document.baseURI));
  for (const [name, value] of Object.entries(authorization())) sending.setRequestHeader(name, value);
  sending.responseType = "json";
  sending.upload.addEventListener("progress", (event) => onProgress(event.loaded / (event.total || 1)));
  return new Promise((resolve, reject) => {
    sending.addEventListener("load", () => resolve({ status: sending.status, body: sending.response }));
    sending.addEventListener("error", () => {
      reject(new ServerError("It could not be sent. Check that the file can be read and that the server runs."));
    });
    sending.send(form);
  });
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
