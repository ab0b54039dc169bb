// Looks at the server again and again, while somebody can see what comes of it.

import { ApiError } from "./api.js";

const RETRY_SECONDS = 2;

/** Ask every running watch to look at once, as when the server has come back. */
export const lookNow = () => document.dispatchEvent(new Event("look-now"));

/**
 * `look(signal)` fetches and shows; it may return the seconds until the next look. `trouble` is told in words what stops it
 * or makes what it showed old, and null once it succeeds again.
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

  /** Look now, in place of a look that is under way or due. */
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
      this.#trouble(error.status === 0 ? "What is shown here may be out of date." : error.message);
      seconds = RETRY_SECONDS;
    }
    this.#timer = setTimeout(() => {
      if (!document.hidden) this.now();
    }, seconds * 1000);
  }
}
