// What is about to be deleted: it is not shown any more, and can still be brought back.

import { api } from "./api.js";
import { explain } from "./errors.js";
import { toast, undoable } from "./toast.js";

const going = new Map();
const listeners = new Set();

// Calls `listener` whenever something goes or comes back; returns a function that ends this.
export function onGone(listener) {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

export function isGoing(path) {
  return going.has(path);
}

// Deletes what is at `path` after some seconds, or when the page is left, unless the person undoes it.
export function deleteLater(path, text) {
  const end = () => {
    going.delete(path);
    listeners.forEach((listener) => listener());
  };
  const act = async ({ keepalive }) => {
    try {
      await api(path, { method: "DELETE", keepalive });
    } catch (error) {
      if (error.code !== "unknown_person" && error.code !== "unknown_face") toast(explain(error));
    }
    end();
  };
  going.set(path, undoable(text, act, end));
  listeners.forEach((listener) => listener());
}

// Deletes at once what is still waiting for that, before something else is changed.
export async function settle() {
  await Promise.all([...going.values()].map((task) => task.finish({ keepalive: false })));
}
