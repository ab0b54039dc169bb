// Values that the page stores in this browser.

const PREFIX = "enginehouse.";

/** The value stored under this name, or the fallback. */
export function recall(name, fallback) {
  try {
    return JSON.parse(localStorage.getItem(PREFIX + name)) ?? fallback;
  } catch {
    // Storage is blocked or contains invalid data; the page works without it.
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
