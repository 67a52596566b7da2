// Messages, plurals, numbers and dates in the language of the page. The functions have gettext's names, so that
// babel finds the messages.

import { facts } from "./facts.js";

const ADDRESS = document.querySelector('link[as="fetch"]').href;
const CONTEXT = "\u0004";

let language = { code: "en", tag: "en-GB", plurals: ["one", "other"], messages: {} };
let plurals = new Intl.PluralRules("en");

export async function loadMessages(code = facts.language) {
  const answer = await fetch(ADDRESS.replace(/[^/]+\.json$/, `${code}.json`), { credentials: "same-origin" });
  if (!answer.ok) throw new Error(`messages ${code}: ${answer.status}`);
  language = await answer.json();
  plurals = new Intl.PluralRules(language.tag);
  document.documentElement.lang = language.tag;
}

export async function changeLanguage(code) {
  await loadMessages(code);
  const secure = location.protocol === "https:" ? "; Secure" : "";
  document.cookie = `language=${code}; Path=/; Max-Age=31536000; SameSite=Strict${secure}`;
}

export function languageCode() {
  return language.code;
}

export function languageTag() {
  return language.tag;
}

export function gettext(message, values) {
  return filled(translated(message), values);
}

export function pgettext(context, message, values) {
  return filled(translated(context + CONTEXT + message), values);
}

export function ngettext(one, many, count, values) {
  const forms = language.messages[one];
  const form = Array.isArray(forms) ? forms[language.plurals.indexOf(plurals.select(count))] : null;
  return filled(form || (count === 1 ? one : many), { count: number(count), ...values });
}

export function number(value, digits = 0) {
  return new Intl.NumberFormat(language.tag, { minimumFractionDigits: digits, maximumFractionDigits: digits }).format(value);
}

export function percent(share, digits = 1) {
  const options = { style: "percent", maximumFractionDigits: digits };
  return new Intl.NumberFormat(language.tag, options).format(share);
}

export function milliseconds(value) {
  return `${number(value, value > 0 && value < 10 ? 1 : 0)} ms`;
}

export function dateTime(moment) {
  return new Intl.DateTimeFormat(language.tag, { dateStyle: "medium", timeStyle: "medium" }).format(new Date(moment));
}

export function clock(moment) {
  return new Intl.DateTimeFormat(language.tag, { timeStyle: "medium" }).format(new Date(moment));
}

// A moment on an axis that spans so many milliseconds.
export function shortTime(moment, span) {
  const day = 24 * 3600 * 1000;
  const parts = span > 2 * day ? { day: "numeric", month: "numeric" } : {};
  const clockToo = span <= 2 * day ? { hour: "2-digit", minute: "2-digit" } : {};
  const seconds = span < 10 * 60 * 1000 ? { second: "2-digit" } : {};
  return new Intl.DateTimeFormat(language.tag, { ...parts, ...clockToo, ...seconds }).format(new Date(moment));
}

export function bytes(count) {
  if (count < 1024 * 1024) return `${number(count / 1024)} KiB`;
  return `${number(count / 1024 / 1024, 1)} MiB`;
}

export function listed(items) {
  return new Intl.ListFormat(language.tag, { type: "conjunction" }).format(items);
}

function translated(message) {
  const found = language.messages[message];
  return typeof found === "string" && found ? found : message.slice(message.indexOf(CONTEXT) + 1);
}

function filled(text, values) {
  return values ? text.replace(/{(\w+)}/g, (whole, name) => (name in values ? String(values[name]) : whole)) : text;
}
