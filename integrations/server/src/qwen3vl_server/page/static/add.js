// Adding documents: files are uploaded one after the other, and followed until the server has indexed them.

import { request, upload } from "./api.js";
import { byId, element } from "./dom.js";

const POLL_MS = 400;
const MAX_POLL_MS = 5000; // while the server does not answer
const GIVE_UP_MS = 600000;
const waiting = []; // files that are not uploaded yet, with their rows
const counts = { files: 0, added: 0, failed: 0 };
let maxBytes = 0;
let isAdding = false;
let hasChanged = false; // since the dialog was opened

export function listenToAdding(server, onChange) {
  byId("open-add").hidden = !server.uploads;
  maxBytes = server.max_upload_bytes;
  byId("open-add").addEventListener("click", () => byId("add").showModal());
  byId("add-pick").addEventListener("click", () => byId("add-files").click());
  byId("add-files").addEventListener("change", () => {
    addDocuments([...byId("add-files").files]);
    byId("add-files").value = "";
  });
  byId("add").addEventListener("close", () => {
    if (hasChanged) onChange();
    hasChanged = false;
  });
}

export async function addDocuments(files) {
  for (const file of files) waiting.push({ file, row: addRow(file.name) });
  counts.files += files.length;
  showCounts();
  if (isAdding) return;
  isAdding = true;
  for (let next = waiting.shift(); next; next = waiting.shift()) {
    const { file, row } = next;
    try {
      row.finish(describe(await add(file, row)));
      counts.added += 1;
      hasChanged = true;
    } catch (error) {
      row.fail(error.message);
      counts.failed += 1;
    }
    showCounts();
  }
  isAdding = false;
}

// Returns the job of a file once it has ended, with at least one document.
async function add(file, row) {
  if (file.size > maxBytes) {
    throw new Error(`It has ${inMiB(file.size)}, and this server takes ${inMiB(maxBytes)} at a time.`);
  }
  const form = new FormData();
  form.append("file", file, file.name);
  let job = await upload("v1/documents", form, row.send);
  row.index();
  while (job.status === "waiting" || job.status === "running") {
    await pause(POLL_MS);
    job = await readJob(job.id);
  }
  const reason = job.error ?? (job.added + job.unchanged === 0 ? job.failed[0]?.reason ?? "There is nothing in it." : null);
  if (reason !== null) throw new Error(reason);
  return job;
}

// Returns a job. The server goes on with it whether or not it is asked, also after a restart: a request that fails is
// repeated for a while.
async function readJob(id) {
  const giveUp = Date.now() + GIVE_UP_MS;
  for (let delay = POLL_MS; ; delay = Math.min(2 * delay, MAX_POLL_MS)) {
    try {
      return await request(`v1/documents/jobs/${encodeURIComponent(id)}`);
    } catch (error) {
      const isTemporary = error.status === 0 || error.status === 429 || error.status >= 500;
      if (!isTemporary) throw error;
      if (Date.now() > giveUp) throw new Error(`${error.message} The file was sent, and may be indexed nevertheless.`);
      await pause(delay);
    }
  }
}

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

function describe(job) {
  const parts = [];
  if (job.added > 0) parts.push(`added, ${job.added === 1 ? "1 document" : `${job.added} documents`}`);
  if (job.unchanged > 0) parts.push(job.added > 0 ? `${job.unchanged} were there already` : "was there already");
  if (job.failed.length > 0) parts.push(`${job.failed.length} failed: ${job.failed[0].reason}`);
  return parts.join("; ");
}

function addRow(name) {
  const state = element("span", { className: "muted" }, "waiting");
  const progress = element("progress", { value: 0, ariaLabel: name });
  const row = element("li", {}, element("bdi", { className: "add-name", title: name }, name), state, progress);
  byId("add-list").append(row);
  row.scrollIntoView({ block: "nearest" });
  const end = (className, text) => {
    row.className = className;
    state.textContent = text;
    progress.remove();
  };
  return {
    send(part) {
      progress.value = part;
      state.textContent = `uploading, ${Math.floor(100 * part)} %`;
    },
    index() {
      progress.removeAttribute("value"); // how long it takes is not known
      state.textContent = "being indexed";
    },
    finish: (text) => end("done", text),
    fail: (text) => end("failed", text),
  };
}

function showCounts() {
  const { files, added, failed } = counts;
  const total = files === 1 ? "1 file" : `${files} files`;
  byId("add-status").textContent = `${added} of ${total} added${failed > 0 ? `, ${failed} failed` : ""}`;
}

const inMiB = (bytes) => `${(bytes / 2 ** 20).toLocaleString("en", { maximumFractionDigits: 1 })} MiB`;
