// Long work of the service, followed as it goes on. What is known of it stays when another view is looked at.

const known = new Map();
const listeners = new Set();

// Calls `listener(domain)` whenever something is known anew; returns a function that ends this.
export function onJob(listener) {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

// The last job of a domain: {kind, state: "running" | "done" | "failed", done, total, report, error}, or null.
export function jobOf(domain) {
  return known.get(domain) ?? null;
}

export function forgetJob(domain) {
  known.delete(domain);
  listeners.forEach((listener) => listener(domain));
}

// Follows `job` as the service answered it.
export function follow(job) {
  const source = new EventSource(`/jobs/${job.id}/events`);
  const tell = (values) => {
    known.set(job.domain, { ...known.get(job.domain), ...values });
    listeners.forEach((listener) => listener(job.domain));
  };
  const end = (values) => {
    source.close();
    tell(values);
  };
  source.addEventListener("progress", (event) => tell(JSON.parse(event.data)));
  source.addEventListener("done", (event) => end({ state: "done", ...JSON.parse(event.data) }));
  source.addEventListener("failed", (event) => end({ state: "failed", ...JSON.parse(event.data) }));
  source.addEventListener("error", () => {
    if (source.readyState === EventSource.CLOSED) end({ state: "failed", error: { code: "unreachable", message: "" } });
  });
  known.set(job.domain, { kind: job.kind, state: "running", done: job.done, total: job.total, report: {}, error: {} });
  listeners.forEach((listener) => listener(job.domain));
}
