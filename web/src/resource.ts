// Data of the server that a view shows and refreshes.

import { signal, type Signal } from "@preact/signals";
import { useEffect, useMemo, useRef } from "preact/hooks";
import { ApiError } from "./api.ts";
import { identity } from "./key.ts";

const RETRY_SECONDS = 2;

/** Incremented when the server is back or something has changed, so that everything is fetched again. */
export const refreshes = signal(0);
export const refresh = () => {
  refreshes.value += 1;
};
window.addEventListener("online", refresh);

export interface Resource<T> {
  data: Signal<T | null>;
  error: Signal<ApiError | null>;
  reload: () => void;
}

/**
 * Loads when the key changes, and again `seconds` later while the page is visible: 0 means once; a function is given the data.
 * A key of null loads nothing.
 */
export function useResource<T>(
  key: string | null,
  load: (signal: AbortSignal, previous: T | null) => Promise<T>,
  seconds: number | ((data: T) => number) = 0,
): Resource<T> {
  // Made for each key, so that what belongs to another one is not shown for a moment.
  const data = useMemo(() => signal<T | null>(null), [key]);
  const error = useMemo(() => signal<ApiError | null>(null), [key]);
  const again = useRef<() => void>(() => {});
  const latest = useRef({ load, seconds });
  latest.current = { load, seconds };
  const version = `${identity.value}/${refreshes.value}`;

  useEffect(() => {
    if (key === null) return;
    let running = new AbortController();
    let timer: ReturnType<typeof setTimeout> | undefined;
    let due = false;

    async function run(): Promise<void> {
      running.abort();
      clearTimeout(timer);
      due = false;
      const mine = new AbortController();
      running = mine;
      let next: number;
      try {
        const loaded = await latest.current.load(mine.signal, data.peek());
        if (mine.signal.aborted) return;
        data.value = loaded;
        error.value = null;
        next = typeof latest.current.seconds === "function" ? latest.current.seconds(loaded) : latest.current.seconds;
      } catch (problem) {
        if (mine.signal.aborted) return;
        if (!(problem instanceof ApiError)) throw problem;
        error.value = problem;
        next = problem.temporary ? (problem.retryAfter ?? RETRY_SECONDS) : 0;
      }
      if (next > 0) timer = setTimeout(() => (document.hidden ? (due = true) : void run()), next * 1000);
    }
    const visible = () => {
      if (!document.hidden && due) void run();
    };
    again.current = () => void run();
    document.addEventListener("visibilitychange", visible);
    void run();
    return () => {
      running.abort();
      clearTimeout(timer);
      document.removeEventListener("visibilitychange", visible);
    };
  }, [key, version]);

  return useMemo(() => ({ data, error, reload: () => again.current() }), [data, error]);
}

/** A value that this browser remembers. */
export function remembered<T>(name: string, initial: T): Signal<T> {
  const key = `enginehouse.${name}`;
  let first = initial;
  try {
    const text = localStorage.getItem(key);
    if (text !== null) first = JSON.parse(text);
  } catch {
    // Storage may be blocked or hold something else.
  }
  const value = signal(first);
  value.subscribe((now) => {
    try {
      localStorage.setItem(key, JSON.stringify(now));
    } catch {
      // The value is kept until the page is closed.
    }
  });
  return value;
}
