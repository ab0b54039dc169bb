// How questions are asked: model, collection, system prompt and sampling. This browser remembers them.

import { identity, signedIn } from "../key.ts";
import { remembered } from "../resource.ts";

const model = remembered("model", "");
const collection = remembered("collection", "");
const sampling = remembered<Record<string, number | null>>("sampling", {});
const system = remembered("system", "");

// The next user to sign in may be someone else.
identity.subscribe((change) => {
  if (change > 0 && !signedIn.value) system.value = "";
});

/** `[field, label, smallest, largest, step, default]` */
export const SAMPLING: [string, string, number, number, number, string][] = [
  ["temperature", "Temperature", 0, 2, 0.1, "0.7"],
  ["top_p", "Top p", 0.01, 1, 0.01, "0.9"],
  ["top_k", "Top k", 0, 100_000, 1, "0"],
  ["max_tokens", "Longest answer (tokens)", 1, 1_000_000, 1, "model's limit"],
  ["passages", "Passages", 1, 50, 1, "3"],
  ["seed", "Seed", -(2 ** 53), 2 ** 53, 1, "random"],
];

/** The fields of a question. Another answer to one keeps its collection. */
function request({ again = false } = {}): Record<string, unknown> {
  const json: Record<string, unknown> = {};
  if (model.value) json["model"] = model.value;
  if (collection.value && !again) json["collection"] = collection.value;
  if (system.value.trim()) json["system"] = system.value;
  for (const [field, value] of Object.entries(sampling.value)) {
    if (value !== null && (field !== "passages" || (collection.value && !again))) json[field] = value;
  }
  return json;
}

export const options = { model, collection, sampling, system, request };
