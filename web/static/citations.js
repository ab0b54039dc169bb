// An answer and the passages that it cites.

import { element } from "./dom.js";

/** Writes an answer into a node. Its markers, such as [1], become buttons that open the passage in `list`. */
export function writeAnswer(node, text, citations, list) {
  const markers = new Set(citations.map((citation) => citation.marker));
  const parts = text.split(/(\[\d+\])/).map((part) => {
    if (!markers.has(part)) return part;
    const open = () => {
      const passage = [...list.children].find((child) => child.dataset.marker === part);
      passage.open = true;
      passage.querySelector("summary").focus();
    };
    return element("button", { type: "button", class: "marker", "aria-label": `Passage ${part}`, onclick: open }, part);
  });
  node.replaceChildren(...parts);
}

/** The passages, each as "name, page N", which opens the quote. */
export function citationList(citations) {
  const entries = citations.map((citation) => element(
    "details",
    { class: "citation", "data-marker": citation.marker },
    element("summary", {}, element("span", { class: "number" }, citation.marker), ` ${citation.document}, page ${citation.page}`),
    element("blockquote", {}, citation.quote),
  ));
  return element("div", { class: "citations", role: "group", "aria-label": "Sources" }, ...entries);
}
