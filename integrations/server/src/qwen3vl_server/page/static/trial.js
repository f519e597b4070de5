// Requests that the reader sends from the page, and the same requests as commands.

import { byId, element } from "./dom.js";

const KEY = "qwen3vl-api-key"; // the search page's
const MAX_SHOWN = 20_000; // characters of an answer

export function listenToKey() {
  const field = byId("key");
  field.value = sessionStorage.getItem(KEY) ?? "";
  // Headers carry printable ASCII only; the server's keys are that.
  field.addEventListener("input", () => sessionStorage.setItem(KEY, field.value.replace(/[^!-~]/g, "")));
}

// `examples` are bodies; null for endpoints without one.
export function trialForm({ method, path, parameters, examples }) {
  const inputs = parameters.map((parameter) => [parameter, element("input", { type: "text", autocomplete: "off" })]);
  const body = examples === null ? null : bodyField(examples);
  const status = element("p", { className: "muted", role: "status" });
  const output = element("pre", { tabIndex: 0, hidden: true });
  const show = (text, answer) => {
    status.textContent = text;
    output.textContent = answer;
    output.hidden = answer === "";
  };
  const prepared = (action) => async () => {
    try {
      await action(prepare(method, path, inputs, body?.field.value), show);
    } catch (error) {
      show(error.message, "");
    }
  };
  const buttons = element("div", { className: "buttons" }, button("Send", prepared(send), "primary"));
  buttons.append(button("As a command", prepared((request) => show("", command(request)))), ...(body?.buttons ?? []));
  const labels = inputs.map(([{ name }, input]) => element("label", {}, element("span", {}, name), input));
  return element("div", { className: "trial" }, ...labels, body?.field, buttons, status, output);
}

function bodyField(examples) {
  const texts = examples.map((example) => JSON.stringify(example, null, 2));
  const field = element("textarea", { spellcheck: false, ariaLabel: "Body of the request", value: texts[0] ?? "{}" });
  const resize = () => {
    field.rows = Math.min(field.value.split("\n").length + 1, 24);
  };
  field.addEventListener("input", resize);
  resize();
  const choose = (text) => () => {
    field.value = text;
    resize();
  };
  const several = texts.length > 1 ? texts : [];
  return { field, buttons: several.map((text, index) => button(`Example ${index + 1}`, choose(text))) };
}

function button(text, onClick, className = "") {
  const created = element("button", { type: "button", className }, text);
  created.addEventListener("click", onClick);
  return created;
}

function prepare(method, path, inputs, body) {
  const query = new URLSearchParams();
  let filled = path;
  for (const [parameter, { value }] of inputs) {
    if (parameter.in === "path") {
      if (!value) throw new Error(`${parameter.name} is missing.`);
      filled = filled.replace(`{${parameter.name}}`, encodeURIComponent(value));
    } else if (value) query.append(parameter.name, value);
  }
  const url = new URL(`.${filled}`, document.baseURI);
  url.search = query;
  return { method: method.toUpperCase(), url, body };
}

async function send({ method, url, body }, show) {
  const headers = body === undefined ? {} : { "Content-Type": "application/json" };
  const key = sessionStorage.getItem(KEY);
  if (key) headers.Authorization = `Bearer ${key}`;
  show("Waiting for the answer …", "");
  const start = performance.now();
  const response = await fetch(url, { method, headers, body });
  const content = await response.blob();
  const milliseconds = Math.round(performance.now() - start);
  const type = response.headers.get("Content-Type") ?? "no content";
  const isText = /json|^text\//.test(type);
  const text = isText ? indent(await content.text()) : "";
  const more = text.length - MAX_SHOWN;
  const size = content.size.toLocaleString("en");
  show(
    `Status ${response.status}, ${type}, ${size} bytes, ${milliseconds} ms`,
    more > 0 ? `${text.slice(0, MAX_SHOWN)}\n… and ${more.toLocaleString("en")} more characters` : text,
  );
}

function indent(text) {
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}

const quote = (text) => `'${text.replaceAll("'", "'\\''")}'`;

function command({ method, url, body }) {
  const parts = [`curl ${quote(url.href)}`];
  if (method !== (body === undefined ? "GET" : "POST")) parts.push(`-X ${method}`);
  if (sessionStorage.getItem(KEY)) parts.push('-H "Authorization: Bearer $QWEN3VL_API_KEY"');
  if (body !== undefined) parts.push("-H 'Content-Type: application/json'", `-d ${quote(body)}`);
  return parts.join(" \\\n  ");
}
