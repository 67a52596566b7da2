// Reads an OpenAPI document: references resolved, examples turned into curl.

import { facts } from "./facts.js";

const METHODS = ["get", "post", "put", "patch", "delete"];

export class OpenApi {
  constructor(document) {
    this.document = document;
  }

  // [{tag, operations: [{method, path, ...operation}]}] in the order of the document's tags.
  groups() {
    const groups = new Map((this.document.tags ?? []).map((tag) => [tag.name, { tag: tag.name, about: tag.description ?? "", operations: [] }]));
    for (const [path, item] of Object.entries(this.document.paths)) {
      for (const method of METHODS.filter((name) => name in item)) {
        const operation = item[method];
        const tag = operation.tags?.[0] ?? path.split("/")[1];
        if (!groups.has(tag)) groups.set(tag, { tag, about: "", operations: [] });
        const parameters = [...(item.parameters ?? []), ...(operation.parameters ?? [])].map((parameter) => this.resolve(parameter));
        groups.get(tag).operations.push({ ...operation, method, path, parameters });
      }
    }
    return [...groups.values()].filter((group) => group.operations.length);
  }

  resolve(value) {
    let found = value;
    while (found?.$ref) {
      found = found.$ref.split("/").slice(1).reduce((node, key) => node[key], this.document);
    }
    return found;
  }

  body(operation) {
    const body = this.resolve(operation.requestBody);
    const [type, content] = Object.entries(body?.content ?? {})[0] ?? [];
    return type ? { type, content, schema: this.resolve(content.schema) } : null;
  }

  // [{status, description, type, example, schema}], the successful one first.
  answers(operation) {
    return Object.entries(operation.responses).map(([status, answer]) => {
      const resolved = this.resolve(answer);
      const [type, content] = Object.entries(resolved.content ?? {})[0] ?? [];
      return { status, description: resolved.description, type, example: content ? example(content) : undefined, schema: content?.schema };
    });
  }

  needsToken(operation) {
    return (operation.security ?? this.document.security ?? []).length > 0;
  }

  curl(operation) {
    const parts = ["curl"];
    if (operation.method !== "get" && !(operation.method === "post" && operation.requestBody)) parts.push(`-X ${operation.method.toUpperCase()}`);
    if (facts.guarded && this.needsToken(operation)) parts.push('-H "Authorization: $TOKEN"');
    const body = this.body(operation);
    if (body?.type === "multipart/form-data") {
      for (const [name, property] of Object.entries(body.schema.properties)) {
        const resolved = this.resolve(property);
        const file = resolved.example ?? resolved.examples?.[0] ?? resolved.items?.examples?.[0];
        if (file !== undefined) parts.push(`-F ${name}=@${file}`);
      }
    } else if (body) {
      parts.push("-H 'Content-Type: application/json'", `-d '${JSON.stringify(example(body.content) ?? {}).replaceAll("'", `'\\''`)}'`);
    }
    if (this.answers(operation).some((answer) => answer.type?.startsWith("image/"))) parts.push("-o picture.jpg");
    parts.push(`'${location.origin}${this.address(operation)}'`);
    return parts.join(" ");
  }

  address(operation) {
    const query = [];
    let path = operation.path;
    for (const parameter of operation.parameters) {
      const given = parameter.example ?? parameter.schema?.example ?? parameter.schema?.examples?.[0];
      if (parameter.in === "path") path = path.replace(`{${parameter.name}}`, encodeURIComponent(given ?? parameter.name.toUpperCase()));
      else if (parameter.in === "query" && given !== undefined) query.push(`${parameter.name}=${encodeURIComponent(given)}`);
    }
    return query.length ? `${path}?${query.join("&")}` : path;
  }

  // [{name, type, about, required, fields}] of an object's schema.
  fields(schema, depth = 0) {
    const resolved = this.resolve(schema) ?? {};
    if (depth > 5) return [];
    const parts = [resolved, ...(resolved.allOf ?? []).map((part) => this.resolve(part))];
    return parts.flatMap((part) =>
      Object.entries(part.properties ?? {}).map(([name, property]) => {
        const field = this.resolve(property);
        const inner = field.items ?? (field.anyOf ?? field.oneOf ?? []).find((option) => option.$ref) ?? field;
        return { name, type: this.type(property), about: field.description ?? "", required: (part.required ?? []).includes(name), fields: this.fields(inner, depth + 1) };
      }),
    );
  }

  type(schema) {
    const resolved = this.resolve(schema);
    if ("const" in resolved) return JSON.stringify(resolved.const);
    if (resolved.enum) return resolved.enum.map((value) => JSON.stringify(value)).join(" | ");
    const options = resolved.anyOf ?? resolved.oneOf;
    if (options) return options.map((option) => this.type(option)).join(" | ");
    if (resolved.type === "array") return `[${this.type(resolved.items ?? {})}]`;
    return [resolved.type ?? "any"].flat().join(" | ");
  }
}

function example(content) {
  if ("example" in content) return content.example;
  return Object.values(content.examples ?? {})[0]?.value;
}
