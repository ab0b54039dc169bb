// Draws the page. Every view imports it: the HTML of a view loads the module of that view.

import { render } from "preact";
import { App } from "./app.tsx";
import { keepFocus } from "./ui/focus.ts";

const parsed = document.readyState === "loading" ? new Promise((resolve) => addEventListener("DOMContentLoaded", resolve)) : null;

// Parts of the page measure themselves as soon as they are drawn.
function styled(): Promise<unknown> | null {
  const link = document.querySelector<HTMLLinkElement>("link[rel=stylesheet]");
  return link === null || link.sheet ? null : new Promise((resolve) => (link.onload = link.onerror = resolve));
}

async function start(): Promise<void> {
  await parsed;
  await styled();
  const root = document.getElementById("app")!;
  root.replaceChildren();
  render(<App />, root);
  keepFocus();
}

void start();
