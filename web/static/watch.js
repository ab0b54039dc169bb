// Polls the server while the page is visible.

import { ApiError } from "./api.js";

const RETRY_SECONDS = 2;

/** Makes every running watch refresh at once, for example when the server is back. */
export const lookNow = () => document.dispatchEvent(new Event("look-now"));

/**
 * `look(signal)` fetches and renders; it may return the seconds until the next refresh. `trouble` receives an error text, and
 * null once a refresh succeeds.
 */
export class Watch {
  #look;
  #trouble;
  #seconds;
  #on = false;
  #timer = null;
  #running = null;

  constructor(look, trouble, seconds) {
    this.#look = look;
    this.#trouble = trouble;
    this.#seconds = seconds;
    const again = () => {
      if (!document.hidden) this.now();
    };
    for (const event of ["visibilitychange", "look-now"]) document.addEventListener(event, again);
    for (const event of ["online", "offline"]) window.addEventListener(event, again);
  }

  start() {
    this.#on = true;
    return this.now();
  }

  stop() {
    this.#on = false;
    this.#running?.abort();
    clearTimeout(this.#timer);
  }

  /** Refreshes now, instead of a refresh that is running or due. */
  async now() {
    if (!this.#on) return;
    this.#running?.abort();
    clearTimeout(this.#timer);
    const running = new AbortController();
    this.#running = running;
    let seconds;
    try {
      seconds = (await this.#look(running.signal)) ?? this.#seconds;
      if (running.signal.aborted) return;
      this.#trouble(null);
    } catch (error) {
      if (running.signal.aborted) return;
      if (!(error instanceof ApiError)) throw error;
      this.#trouble(error.status === 0 ? "This page may be out of date." : error.message);
      seconds = RETRY_SECONDS;
    }
    this.#timer = setTimeout(() => {
      if (!document.hidden) this.now();
    }, seconds * 1000);
  }
}
