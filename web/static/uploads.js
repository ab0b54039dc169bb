// Uploads files into a collection, a few at a time, and shows the progress.

import { ApiError, outcome, unreachable } from "./api.js";
import { element, find, setText } from "./dom.js";
import { credentials } from "./key.js";
import { count } from "./words.js";

const AT_ONCE = 2;

export class Uploads {
  #waiting = [];
  #sending = new Map();
  #failed = [];
  #total = { files: 0, bytes: 0 };
  #done = { files: 0, bytes: 0 };
  #duplicates = 0;
  #onSent;

  /** `onSent` is called when the last file has been sent or rejected. */
  constructor(onSent) {
    this.#onSent = onSent;
    find("uploads-clear").addEventListener("click", () => this.#showFailed([]));
    window.addEventListener("beforeunload", (event) => {
      if (this.busy) event.preventDefault();
    });
  }

  get busy() {
    return this.#waiting.length + this.#sending.size > 0;
  }

  add(files, collection) {
    if (!this.busy) {
      this.#total = { files: 0, bytes: 0 };
      this.#done = { files: 0, bytes: 0 };
      this.#duplicates = 0;
    }
    for (const file of files) {
      this.#waiting.push({ file, collection });
      this.#total.files += 1;
      this.#total.bytes += file.size;
    }
    this.#next();
  }

  #next() {
    while (this.#waiting.length > 0 && this.#sending.size < AT_ONCE) this.#send(this.#waiting.shift());
    this.#show();
  }

  async #send(upload) {
    this.#sending.set(upload, 0);
    try {
      const [document] = await post(upload, (bytes) => {
        this.#sending.set(upload, bytes);
        this.#show();
      });
      this.#done.files += 1;
      // For bytes that the collection already has, the server returns the existing document, whose name may differ.
      if (document.name !== upload.file.name) this.#duplicates += 1;
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      this.#showFailed([...this.#failed, { ...upload, words: error.message }]);
    }
    this.#done.bytes += upload.file.size;
    this.#sending.delete(upload);
    this.#next();
    if (!this.busy) this.#onSent();
  }

  #show() {
    const { files, bytes } = this.#total;
    const sent = this.#done.bytes + [...this.#sending.values()].reduce((sum, part) => sum + part, 0);
    find("uploads").hidden = files === 0;
    find("uploads-progress").hidden = !this.busy;
    find("uploads-progress").value = bytes === 0 ? 0 : Math.min(1, sent / bytes);
    setText(find("uploads-words"), this.busy ? `Sending ${count(files, "file")}: ${this.#done.files} sent` : this.#summary());
  }

  #showFailed(failed) {
    this.#failed = failed;
    find("uploads-clear").hidden = failed.length === 0;
    find("uploads-failed").replaceChildren(...failed.map((upload) => element(
      "li",
      {},
      element("strong", {}, upload.file.name),
      ` was not sent: ${upload.words} `,
      element("button", { type: "button", class: "plain small", onclick: () => this.#again(upload) }, "Send again"),
    )));
  }

  #summary() {
    const parts = [`${count(this.#done.files, "file")} sent`];
    if (this.#duplicates > 0) parts.push(`${this.#duplicates} with the content of an existing document that has another name`);
    return `${parts.join(", ")}.`;
  }

  #again(upload) {
    this.#showFailed(this.#failed.filter((other) => other !== upload));
    this.add([upload.file], upload.collection);
  }
}

/** Uploads one file and returns the documents of the answer. Throws ApiError. Uses XMLHttpRequest because fetch reports no upload progress. */
function post({ file, collection }, onProgress) {
  const form = new FormData();
  form.append("file", file, file.name);
  const request = new XMLHttpRequest();
  return new Promise((resolve, reject) => {
    request.upload.addEventListener("progress", (event) => onProgress(Math.min(event.loaded, file.size)));
    request.addEventListener("error", () => reject(unreachable()));
    request.addEventListener("load", () => {
      try {
        resolve(outcome(request.status, request.responseText).data);
      } catch (error) {
        reject(error);
      }
    });
    request.open("POST", `/collections/${encodeURIComponent(collection)}/documents`);
    for (const [name, value] of Object.entries(credentials())) request.setRequestHeader(name, value);
    request.send(form);
  });
}
