// The documentation: the server's description of itself, openapi.json, as a page.

import { byId, element, showError } from "./dom.js";
import { fieldTable, parameterTable, resolve, typeId, typeName } from "./schemas.js";
import { listenToKey, trialForm } from "./trial.js";

const METHODS = ["get", "post", "put", "patch", "delete"];
const JSON_TYPE = "application/json";

function render(description) {
  byId("version").textContent = description.info.version;
  byId("search-page").hidden = !("/v1/search" in description.paths);
  for (const [tag, operations] of groups(description)) {
    const id = `group-${tag.replace(/\W+/g, "-")}`;
    byId("contents").append(element("a", { href: `#${id}` }, tag));
    const section = element("section", {}, element("h2", { id }, tag));
    section.append(...operations.map((operation) => operationDetails(operation, description)));
    byId("operations").append(section);
  }
  const types = Object.entries(description.components?.schemas ?? {});
  byId("contents").append(element("a", { href: "#types" }, "Types"));
  byId("types").append(...types.map(([name, schema]) => typeDetails(name, schema)));
  byId("types").hidden = types.length === 0;
}

// The operations by their first tag, in the order of the description.
function groups({ paths }) {
  const found = new Map();
  for (const [path, operations] of Object.entries(paths)) {
    for (const method of METHODS.filter((name) => name in operations)) {
      const operation = operations[method];
      const tag = operation.tags?.[0] ?? "Others";
      if (!found.has(tag)) found.set(tag, []);
      found.get(tag).push({ method, path, ...operation });
    }
  }
  return found;
}

function operationDetails(operation, description) {
  const { method, path, summary } = operation;
  const title = element(
    "summary",
    {},
    element("span", { className: "method" }, method.toUpperCase()),
    element("code", {}, path),
    element("span", { className: "muted" }, summary ?? ""),
  );
  const details = element("details", { id: `${method}${path.replace(/\W+/g, "-")}` }, title);
  fillWhenOpened(details, () => operationContent(operation, description));
  return details;
}

function operationContent(operation, description) {
  const parameters = operation.parameters ?? [];
  const contents = Object.entries(operation.requestBody?.content ?? {});
  const content = element("div", { className: "content" }, element("p", {}, operation.description ?? ""));
  if (parameters.length > 0) content.append(element("h3", {}, "Parameters"), parameterTable(parameters));
  for (const [type, { schema }] of contents) {
    const heading = element("h3", {}, "Body, ", element("code", {}, type));
    content.append(heading, fieldTable(resolve(schema, description) ?? {}));
  }
  const json = operation.requestBody?.content[JSON_TYPE];
  if (json || contents.length === 0) {
    const examples = json ? (resolve(json.schema, description)?.examples ?? []) : null;
    const sent = parameters.filter((parameter) => ["path", "query"].includes(parameter.in));
    content.append(element("h3", {}, "Try it"), trialForm({ ...operation, parameters: sent, examples }));
  }
  content.append(element("h3", {}, "Answers"), answerTable(operation.responses));
  return content;
}

function answerTable(responses) {
  const rows = Object.entries(responses).map(([status, { description, content }]) => {
    const types = Object.values(content ?? {}).map(({ schema }) => typeName(schema));
    const cells = [element("td", {}, ...types), element("td", {}, description ?? "")];
    return element("tr", {}, element("th", { scope: "row" }, status), ...cells);
  });
  return element("table", {}, element("tbody", {}, ...rows));
}

function typeDetails(name, schema) {
  const details = element("details", { id: typeId(name) }, element("summary", {}, element("code", {}, name)));
  fillWhenOpened(details, () => {
    return element("div", { className: "content" }, element("p", {}, schema.description ?? ""), fieldTable(schema));
  });
  return details;
}

function fillWhenOpened(details, make) {
  details.addEventListener("toggle", () => details.append(make()), { once: true });
}

// A link within the page opens what it leads to.
function openTarget() {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (target instanceof HTMLDetailsElement) target.open = true;
  target?.scrollIntoView();
}

async function start() {
  listenToKey();
  try {
    const response = await fetch(new URL("openapi.json", document.baseURI));
    if (!response.ok) throw new Error(`status ${response.status}`);
    render(await response.json());
  } catch (error) {
    showError(`The description of the server cannot be read: ${error.message}.`);
    return;
  }
  openTarget();
  window.addEventListener("hashchange", openTarget);
}

start();
