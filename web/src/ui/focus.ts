// Where the keyboard goes on: when the element that had the focus is gone, and in a new chat.

import { signal } from "@preact/signals";
import { go } from "../router.ts";

/** Whether the message field takes the focus, from whatever has it, as soon as it is there: the code of the chat may still be loading. */
export const messageWanted = signal(false);

export function startChat(): void {
  go("/");
  messageWanted.value = true;
}

/** Moves a lost focus to the sheet or the view that it was in, so that the next Tab does not start at the top of the page. */
export function keepFocus(): void {
  let last: Element | null = null;
  let sheet: HTMLElement | null = null;
  document.addEventListener("focusin", ({ target }) => {
    last = target as Element;
    sheet = last.closest<HTMLElement>(".sheet");
  });
  new MutationObserver(() => {
    // A click beside all controls takes the focus too, and leaves them as they were.
    if (last === null || (last.isConnected && !last.matches(":disabled"))) return;
    const lost = document.activeElement === document.body || document.activeElement === last;
    last = null;
    if (lost) (sheet?.isConnected ? sheet : document.getElementById("main"))?.focus({ preventScroll: true });
  }).observe(document.body, { childList: true, subtree: true, attributes: true, attributeFilter: ["disabled"] });
}
