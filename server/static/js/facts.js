// What the server wrote into the page.

export const facts = JSON.parse(document.documentElement.dataset.facts);
