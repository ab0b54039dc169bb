// The API key of a server that wants one. It is kept until the tab is closed, and shown to this server alone.

const NAME = "enginehouse.key";

/** The headers that show the key; none while there is no key. */
export function credentials() {
  const key = sessionStorage.getItem(NAME);
  return key === null ? {} : { Authorization: `Bearer ${key}` };
}

export const keepKey = (key) => sessionStorage.setItem(NAME, key);
