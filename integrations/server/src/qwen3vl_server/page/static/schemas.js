// The types of the description, as text and as tables of their fields.

import { element } from "./dom.js";

const PREFIX = "#/components/schemas/";

export const typeId = (name) => `type-${name}`;

// The schema itself, in place of a reference to it.
export function resolve(schema, description) {
  return schema?.$ref ? description.components.schemas[schema.$ref.slice(PREFIX.length)] : schema;
}

// The name of a type, as text and links.
export function typeName(schema = {}) {
  const type = element("code");
  type.append(...parts(schema));
  return type;
}

function parts(schema) {
  if (schema.$ref) {
    const name = schema.$ref.slice(PREFIX.length);
    return [element("a", { href: `#${typeId(name)}` }, name)];
  }
  const choices = schema.anyOf ?? schema.oneOf ?? schema.allOf;
  if (choices) return join(choices.map(parts));
  if (schema.enum) return [schema.enum.map((value) => JSON.stringify(value)).join(" | ")];
  if ("const" in schema) return [JSON.stringify(schema.const)];
  if (schema.type === "array") return schema.items ? ["list of ", ...grouped(schema.items)] : ["list"];
  if (schema.format === "binary" || schema.contentMediaType === "application/octet-stream") return ["file"];
  if (schema.type === "object" && schema.additionalProperties?.type) {
    return ["object of ", ...grouped(schema.additionalProperties)];
  }
  return [schema.type ?? "any"];
}

function grouped(schema) {
  const found = parts(schema);
  return found.some((part) => String(part).includes(" | ")) ? ["(", ...found, ")"] : found;
}

function join(lists) {
  return lists.flatMap((list, index) => (index === 0 ? list : [" | ", ...list]));
}

export function fieldTable(schema) {
  const required = new Set(schema.required ?? []);
  const rows = Object.entries(schema.properties ?? {}).map(([name, field]) =>
    fieldRow(name, field, required.has(name), field.description),
  );
  return rows.length === 0 ? element("p", {}, typeName(schema)) : element("table", {}, element("tbody", {}, ...rows));
}

export function parameterTable(parameters) {
  const rows = parameters.map(({ name, schema, required, description }) =>
    fieldRow(name, schema, required, description ?? schema?.description),
  );
  return element("table", {}, element("tbody", {}, ...rows));
}

function fieldRow(name, schema, required, description) {
  const key = element("th", { scope: "row" }, element("code", {}, name));
  if (required) key.append(element("span", { className: "muted" }, " required"));
  const facts = [description, ...limits(schema)].filter(Boolean).join(" ");
  return element("tr", {}, key, element("td", {}, typeName(schema)), element("td", {}, facts));
}

const LIMITS = {
  minimum: "at least",
  exclusiveMinimum: "more than",
  maximum: "at most",
  exclusiveMaximum: "less than",
  minItems: "at least, in number,",
};

function limits(schema = {}) {
  const found = Object.entries(LIMITS).filter(([key]) => key in schema);
  const texts = found.map(([key, text]) => `${text} ${schema[key]}`);
  if (schema.default !== undefined && schema.default !== null) texts.push(`${JSON.stringify(schema.default)} by default`);
  return texts.length === 0 ? [] : [`(${texts.join(", ")})`];
}
