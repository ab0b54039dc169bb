// How questions are asked: model, collection and sampling. This browser remembers them.

import { remembered } from "../resource.ts";

const model = remembered("model", "");
const collection = remembered("collection", "");
const sampling = remembered<Record<string, number | null>>("sampling", {});

/** `[field, label, smallest, largest, step, default]` */
export const SAMPLING: [string, string, number, number, number, string][] = [
  ["temperature", "Temperature", 0, 2, 0.1, "0.7"],
  ["top_p", "Top p", 0.01, 1, 0.01, "0.9"],
  ["top_k", "Top k", 0, 100_000, 1, "0"],
  ["max_tokens", "Longest answer (tokens)", 1, 1_000_000, 1, "model's limit"],
  ["passages", "Passages", 1, 50, 1, "3"],
  ["seed", "Seed", -(2 ** 53), 2 ** 53, 1, "random"],
];

function request(): Record<string, unknown> {
  const json: Record<string, unknown> = {};
  if (model.value) json["model"] = model.value;
  if (collection.value) json["collection"] = collection.value;
  for (const [field, value] of Object.entries(sampling.value)) {
    if (value !== null && (field !== "passages" || collection.value)) json[field] = value;
  }
  return json;
}

export const options = { model, collection, sampling, request };
