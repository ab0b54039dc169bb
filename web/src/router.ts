// The address of the page: a path for the view and its object, a query for filters.

import { computed, signal } from "@preact/signals";

const place = signal(new URL(location.href));

export const segments = computed(() => place.value.pathname.split("/").filter(Boolean).slice(1).map(decode));
export const query = computed(() => place.value.searchParams);

function decode(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

/** The address of a view: `href("jobs", id)` or `href("jobs", { status: "failed" })`. Empty values are left out. */
export function href(...parts: (string | Record<string, string | null | undefined>)[]): string {
  const names = parts.filter((part) => typeof part === "string").map(encodeURIComponent);
  const search = new URLSearchParams();
  for (const part of parts) {
    if (typeof part === "string") continue;
    for (const [name, value] of Object.entries(part)) if (value) search.set(name, value);
  }
  const path = names.length === 0 ? "/" : `/ui/${names.join("/")}`;
  return search.size > 0 ? `${path}?${search}` : path;
}

export function go(address: string, { replace = false } = {}): void {
  const next = new URL(address, location.href);
  if (next.href === place.value.href) return;
  if (replace) history.replaceState(null, "", next);
  else history.pushState(null, "", next);
  place.value = next;
}

/** Changes the filters in the address. */
export function setQuery(changes: Record<string, string | null>): void {
  const next = new URL(place.value);
  for (const [name, value] of Object.entries(changes)) {
    if (value) next.searchParams.set(name, value);
    else next.searchParams.delete(name);
  }
  go(next.href, { replace: true });
}

window.addEventListener("popstate", () => {
  place.value = new URL(location.href);
});

document.addEventListener("click", (event) => {
  if (event.defaultPrevented || event.button !== 0 || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
  const link = (event.target as Element).closest?.("a");
  if (!link || link.target || link.origin !== location.origin || link.hasAttribute("download")) return;
  if (link.pathname !== "/" && !link.pathname.startsWith("/ui/")) return;
  if (link.hash && link.pathname === location.pathname) return;
  event.preventDefault();
  go(link.href);
});
