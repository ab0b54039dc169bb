// The status in the header: whether the server can run jobs, and if not, what is missing.

import { ApiError, call } from "./api.js";
import { find, setNotice, setText } from "./dom.js";
import { lookNow, Watch } from "./watch.js";

const READY_SECONDS = 10;
const NOT_READY_SECONDS = 2;

let state = "unknown";

export const watchHealth = () => new Watch(look, () => {}, READY_SECONDS).start();

async function look(signal) {
  try {
    await call("GET", "/health/ready", { signal });
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    // A 503 is an answer here, not a failure: it names what is missing.
    const missing = error.answer?.waiting_for;
    if (missing) show("waiting", "Not ready", `Waiting for ${missing.join(", ")}.`);
    else show("away", "Away", `${error.message} This page continues as soon as it does.`);
    return NOT_READY_SECONDS;
  }
  show("ready", "Ready", null);
  return READY_SECONDS;
}

function show(next, word, detail) {
  const back = next === "ready" && state !== "ready" && state !== "unknown";
  state = next;
  find("health").dataset.state = next;
  setText(find("health-word"), word);
  setNotice(find("health-detail"), detail);
  if (back) lookNow();
}
