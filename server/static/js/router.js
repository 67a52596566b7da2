// Real addresses, changed without loading the page again.

let routes = {};
let target = null;
let leave = () => {};
let shown = () => {};

// `views` maps paths to `{title(), render(root)}`; render may return a function that is called when the view is left.
export function startRouter(views, root, onshow) {
  routes = views;
  target = root;
  shown = onshow;
  addEventListener("popstate", () => show({ focus: true }));
  document.addEventListener("click", (event) => {
    const link = event.target.closest?.("a[href]");
    const plain = !event.defaultPrevented && event.button === 0 && !event.metaKey && !event.ctrlKey && !event.shiftKey;
    if (!link || !plain || link.target || link.hasAttribute("download") || link.origin !== location.origin) return;
    if (!(link.pathname in routes) || link.hash) return;
    event.preventDefault();
    go(link.pathname + link.search);
  });
  show({ focus: false });
}

export function go(address) {
  history.pushState(null, "", address);
  show({ focus: true });
}

// Changes the query of the address, without a new view. Null takes a parameter away.
export function setQuery(values) {
  history.replaceState(null, "", location.pathname + queryWith(values));
  shown(location.pathname);
}

// The query of the address with other values, starting with "?" unless it is empty.
function queryWith(values) {
  const query = new URLSearchParams(location.search);
  for (const [name, value] of Object.entries(values)) {
    if (value === null) query.delete(name);
    else query.set(name, value);
  }
  const text = query.toString();
  return text ? `?${text}` : "";
}

// Renders the current view anew: other language, other caller.
export function refresh() {
  show({ focus: false });
}

function show({ focus }) {
  leave();
  target.replaceChildren();
  const view = routes[location.pathname] ?? routes["/"];
  document.title = `${view.title()} · Face service`;
  leave = view.render(target) ?? (() => {});
  shown(location.pathname);
  if (!focus) return;
  scrollTo(0, 0);
  const heading = target.querySelector("h1");
  heading?.setAttribute("tabindex", "-1");
  heading?.focus({ preventScroll: true });
}
