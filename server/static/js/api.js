// Requests to the service. Who asks is said by a cookie that no script can read.

export class ApiError extends Error {
  constructor(status, code, message, detail = {}) {
    super(message);
    this.status = status;
    this.code = code;
    this.detail = detail;
  }
}

const unauthorized = new Set();

// Calls `listener` whenever the service asks for a token.
export function onUnauthorized(listener) {
  unauthorized.add(listener);
}

// The JSON answer. `json` and `form` are bodies; `keepalive` lets the request outlive the page.
export async function api(path, { method = "GET", json, form, signal, language, keepalive = false } = {}) {
  const headers = { Accept: "application/json" };
  if (json !== undefined) headers["Content-Type"] = "application/json";
  if (language) headers["Accept-Language"] = language;
  const body = json !== undefined ? JSON.stringify(json) : form;
  let answer;
  try {
    answer = await fetch(path, { method, headers, body, signal, keepalive, credentials: "same-origin", cache: "no-store" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, "unreachable", "");
  }
  const parsed = await answer.json().catch(() => null);
  if (answer.ok && parsed !== null) return parsed;
  const told = parsed?.error ?? {};
  const error = new ApiError(answer.status, told.code ?? "unreadable", told.message ?? "", told);
  error.retryAfter = Number(answer.headers.get("Retry-After")) || 0;
  if (error.status === 401) unauthorized.forEach((listener) => listener());
  throw error;
}

// A path under /domains with its parts escaped.
export function domainPath(domain, ...parts) {
  return ["/domains", domain, ...parts].map((part, index) => (index === 0 ? part : encodeURIComponent(part))).join("/");
}
