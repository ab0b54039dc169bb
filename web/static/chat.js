// The chat: one session of the server, whose id the browser stores, and one question at a time.

import { ApiError, call, followJob } from "./api.js";
import { element, find, setNotice, showChoices } from "./dom.js";
import { recall, remember } from "./remember.js";
import { noAnswer, Turn } from "./turn.js";
import { Watch } from "./watch.js";

const CHOICES_SECONDS = 5;
const EMPTY_CHAT = { session: null, asked: null, answered: [] };
// Citations come from the jobs of the answers. In a very long chat, only the latest are loaded again.
const MAX_SOURCES = 30;

/** The view: `show` and `hide`. */
export function chatView() {
  // asked: the running job and its question; answered: the jobs of the answers.
  let memory = recall("chat", EMPTY_CHAT);
  let conversation = new AbortController();
  let job = null;

  const trouble = (words) => setNotice(find("chat-trouble"), words);
  const choices = new Watch(async (signal) => {
    const [models, collections] = await Promise.all([
      call("GET", "/models", { signal }),
      call("GET", "/collections", { signal }),
    ]);
    showModels(models);
    showCollections(collections.data);
  }, trouble, CHOICES_SECONDS);
  const restoring = new Watch(async (signal) => {
    const asked = await restore(signal);
    restoring.stop();
    trouble(null);
    if (asked === null) busy(false);
    else follow(addTurn(asked.text), asked.job);
  }, trouble, CHOICES_SECONDS);

  function keep(change) {
    memory = { ...memory, ...change };
    remember("chat", memory);
  }

  /** Shows the history. Returns the question without an answer, which is never part of the history. */
  async function restore(signal) {
    if (memory.session === null) return null;
    for (;;) {
      const before = await findJob(memory.asked?.job, signal);
      const history = await call("GET", `/chat/history/${encodeURIComponent(memory.session)}`, { signal }).catch(forgotten);
      const jobs = await Promise.all(memory.answered.slice(-MAX_SOURCES).map((id) => findJob(id, signal)));
      const after = await findJob(memory.asked?.job, signal);
      if (before?.status !== after?.status) continue;
      const open = after !== null && after.status !== "completed" ? memory.asked : null;
      if (after?.status === "completed") jobs.push(after);
      const kept = jobs.filter((found) => found !== null);
      keep({ asked: open, answered: kept.map((found) => found.id) });
      showHistory(history.messages, kept);
      return open;
    }
  }

  function forgotten(error) {
    if (error.code !== "session_not_found") throw error;
    keep(EMPTY_CHAT);
    return { messages: [] };
  }

  function showHistory(messages, jobs) {
    find("chat-turns").replaceChildren();
    let next = 0;
    for (let i = 0; i + 1 < messages.length; i += 2) {
      const answer = messages[i + 1].content;
      const found = jobs.findIndex((job, place) => place >= next && job.result?.text === answer);
      if (found >= 0) next = found + 1;
      addTurn(messages[i].content).answered(answer, jobs[found] ?? null);
    }
    find("chat-empty").hidden = find("chat-turns").children.length > 0;
    if (messages.length > 0) window.scrollTo(0, document.body.scrollHeight);
  }

  function addTurn(text) {
    const turn = new Turn(text);
    find("chat-empty").hidden = true;
    find("chat-turns").append(turn.node);
    turn.waiting("Sending…");
    turn.node.scrollIntoView({ block: "nearest" });
    return turn;
  }

  async function ask(text) {
    const { signal } = conversation;
    const turn = addTurn(text);
    busy(true);
    try {
      const { id } = await submit(text, turn, signal);
      keep({ asked: { job: id, text } });
      await follow(turn, id);
    } catch (error) {
      if (signal.aborted) return;
      fail(turn, error);
    }
  }

  async function submit(text, turn, signal) {
    const say = () => call("POST", "/chat/message", { json: requestBody(text), prefer: "respond-async", signal });
    if (memory.session === null) await begin(signal);
    try {
      return await say();
    } catch (error) {
      if (error.code !== "session_not_found") throw error;
      turn.node.before(element("p", { class: "hint" }, "The server no longer has the messages above. This is a new chat."));
      await begin(signal);
      return say();
    }
  }

  async function begin(signal) {
    const { sessionId } = await call("POST", "/chat/start", { json: {}, signal });
    keep({ ...EMPTY_CHAT, session: sessionId });
  }

  function requestBody(text) {
    const json = { sessionId: memory.session, message: text };
    if (find("chat-model").value) json.model = find("chat-model").value;
    if (find("chat-collection").value) json.collection = find("chat-collection").value;
    return json;
  }

  async function follow(turn, id) {
    const { signal } = conversation;
    job = id;
    busy(true);
    try {
      const ended = await followJob(id, {
        signal,
        onChange: (now) => turn.underWay(now),
        onTrouble: (error) => error && turn.waiting(`${error.message} Your question will be answered later.`),
      });
      if (ended.status === "completed") {
        keep({ asked: null, answered: [...memory.answered, id].slice(-MAX_SOURCES) });
        turn.answered(ended.result.text, ended);
        busy(false);
      } else {
        fail(turn, new ApiError(noAnswer(ended), { code: ended.status }));
      }
      turn.node.scrollIntoView({ block: "nearest" });
    } catch (error) {
      if (!signal.aborted) fail(turn, error);
    }
  }

  function fail(turn, error) {
    if (!(error instanceof ApiError)) throw error;
    keep({ asked: null });
    busy(false);
    const again = () => {
      if (find("chat-send").disabled) return;
      turn.node.remove();
      ask(turn.text);
    };
    turn.failed(error.message, again, error.code === "cancelled" ? "stopped" : "failed");
  }

  function busy(yes) {
    if (!yes) job = null;
    find("chat-send").disabled = yes;
    find("chat-send").hidden = job !== null;
    find("chat-stop").hidden = job === null;
    find("chat-stop").disabled = false;
  }

  async function stop() {
    find("chat-stop").disabled = true;
    try {
      await call("POST", `/jobs/${job}/cancel`);
    } catch (error) {
      // It may have ended in the meantime; the poll that is running reports that.
      if (error.code === "job_ended") return;
      find("chat-stop").disabled = false;
      trouble(error.message);
    }
  }

  function startNewChat() {
    conversation.abort();
    conversation = new AbortController();
    restoring.stop();
    keep(EMPTY_CHAT);
    find("chat-turns").replaceChildren();
    find("chat-empty").hidden = false;
    busy(false);
    find("chat-text").focus();
  }

  const text = find("chat-text");
  find("chat-form").addEventListener("submit", (event) => {
    event.preventDefault();
    if (find("chat-send").disabled || text.value.trim() === "") return;
    ask(text.value);
    text.value = "";
    text.focus();
  });
  text.addEventListener("keydown", (event) => {
    // During input composition (Chinese, Japanese), Enter accepts the word and must not send.
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    find("chat-form").requestSubmit();
  });
  find("chat-stop").addEventListener("click", stop);
  find("chat-new").addEventListener("click", startNewChat);
  find("chat-model").addEventListener("change", (event) => remember("model", event.target.value));
  find("chat-collection").addEventListener("change", (event) => remember("chat-collection", event.target.value));
  find("chat-empty").hidden = memory.session !== null;
  find("chat-send").disabled = true;
  restoring.start();

  function show() {
    choices.start();
    if (find("chat-turns").children.length > 0) window.scrollTo(0, document.body.scrollHeight);
  }

  return { show, hide: () => choices.stop() };
}

/** A job, or null if it no longer exists. */
async function findJob(id, signal) {
  if (id === undefined) return null;
  try {
    return await call("GET", `/jobs/${id}`, { signal });
  } catch (error) {
    if (error.status === 404) return null;
    throw error;
  }
}

function showModels(models) {
  const generators = models.filter((model) => model.task === "generate");
  const ready = generators.filter((model) => model.state === "ready");
  const choices = [...ready, ...generators.filter((model) => model.state !== "ready")].map((model) => ({
    value: model.name,
    label: model.state === "ready" ? model.name : `${model.name} (${unavailableReason(model)})`,
    disabled: model.state !== "ready",
  }));
  const last = recall("model", null);
  const best = ready.find((model) => model.name === last) ?? ready.find((model) => model.default) ?? ready[0];
  showChoices(find("chat-model"), choices, (best ?? generators.find((model) => model.default))?.name);
}

function unavailableReason(model) {
  if (model.state === "not_served") return "not served by any worker";
  if (model.state === "failed") return `failed: ${model.reason ?? "see the log"}`.slice(0, 80);
  return model.progress === null ? model.state : `${model.state}, ${Math.round(model.progress * 100)}%`;
}

function showCollections(collections) {
  const choices = collections.map(({ name, documents }) => ({ value: name, label: `${name} (${documents})` }));
  showChoices(find("chat-collection"), [{ value: "", label: "the model only" }, ...choices], recall("chat-collection", ""));
}
