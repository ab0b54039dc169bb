// The API key of a server that needs one. It is kept until the tab is closed, and sent to this server only.

const NAME = "enginehouse.key";

/** The authorization header, or no headers if there is no key. */
export function credentials() {
  const key = sessionStorage.getItem(NAME);
  return key === null ? {} : { Authorization: `Bearer ${key}` };
}

export const keepKey = (key) => sessionStorage.setItem(NAME, key);
