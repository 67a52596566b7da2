// Pictures that were handed in and what the service said of them. They live in this page's memory and nowhere else.

import { api, ApiError } from "./api.js";
import { thresholdOf } from "./domains.js";
import { facts } from "./facts.js";
import { languageCode } from "./i18n.js";

const AT_ONCE = 2;
const KEPT = 24;

// Each: {id, name, url, file, domain, language, state: "waiting" | "working" | "done" | "failed", answer,
// threshold, error}
export const results = [];

let nextId = 1;
let working = 0;
const listeners = new Set();

// Calls `listener(result)` on every change; returns a function that ends this.
export function onResult(listener) {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

// Takes pictures in; returns the first of them.
export function analyse(files, domain) {
  const added = [...files].map((file) => ({
    id: nextId++,
    name: file.name || "picture.png",
    url: URL.createObjectURL(file),
    file,
    domain,
    language: languageCode(),
    state: "waiting",
    answer: null,
    threshold: facts.threshold,
    error: null,
  }));
  results.push(...added);
  forget(results.slice(0, -KEPT).filter((result) => result.state === "done" || result.state === "failed"));
  added.forEach(tell);
  work();
  return added[0] ?? null;
}

export function again(result) {
  result.state = "waiting";
  result.error = null;
  tell(result);
  work();
}

export function clearResults() {
  forget([...results]);
}

// How far along the pictures are: {done, total}.
export function progress() {
  return { done: results.filter((result) => result.state === "done" || result.state === "failed").length, total: results.length };
}

function forget(gone) {
  for (const result of gone) {
    URL.revokeObjectURL(result.url);
    results.splice(results.indexOf(result), 1);
  }
}

function tell(result) {
  listeners.forEach((listener) => listener(result));
}

function work() {
  for (const result of results) {
    if (working >= AT_ONCE) return;
    if (result.state === "waiting") ask(result);
  }
}

async function ask(result) {
  working += 1;
  result.state = "working";
  tell(result);
  try {
    if (result.file.size > facts.maxBytes) throw new ApiError(413, "image_too_large", "");
    const form = new FormData();
    form.append("image", result.file, result.name);
    const query = new URLSearchParams({ domain: result.domain, language: result.language });
    const [answer, threshold] = await Promise.all([api(`/analyze?${query}`, { method: "POST", form }), thresholdOf(result.domain)]);
    Object.assign(result, { answer, threshold });
    result.state = "done";
  } catch (error) {
    result.error = error;
    result.state = "failed";
  }
  working -= 1;
  tell(result);
  work();
}
