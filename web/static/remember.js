// What the page remembers in this browser from one visit to the next.

const PREFIX = "enginehouse.";

/** What was remembered under this name, or the fallback. */
export function recall(name, fallback) {
  try {
    return JSON.parse(localStorage.getItem(PREFIX + name)) ?? fallback;
  } catch {
    // Storage is blocked, or holds what another program wrote: the page works without a memory.
    return fallback;
  }
}

export function remember(name, value) {
  try {
    localStorage.setItem(PREFIX + name, JSON.stringify(value));
  } catch {
    // Blocked or full, see above.
  }
}
