// Saving a file of the server, which may need the key.

import { fetchBlob } from "../api.ts";
import { credentials } from "../early.ts";

const REVOKE_SECONDS = 60;

/** Saves what a path returns under this name. Throws ApiError. */
export async function download(path: string, name: string): Promise<void> {
  if (Object.keys(credentials()).length === 0) return save(path, name);
  const address = URL.createObjectURL(await fetchBlob(path));
  save(address, name);
  setTimeout(() => URL.revokeObjectURL(address), REVOKE_SECONDS * 1000);
}

function save(address: string, name: string): void {
  const link = document.createElement("a");
  link.href = address;
  link.download = name.split("/").at(-1) || "document";
  link.click();
}
