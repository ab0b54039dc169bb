// The list of chats: search, rename, export, delete and restore.

import { useSignal } from "@preact/signals";
import { Download, Ellipsis, Pencil, Plus, Trash2 } from "lucide";
import { useEffect, useRef } from "preact/hooks";
import { call } from "../api.ts";
import { go, href, segments } from "../router.ts";
import type { ChatEntry, ChatTurns } from "../types.ts";
import { attempt, Dialog, Icon, IconButton, toast } from "../ui/basics.tsx";
import { startChat } from "../ui/focus.ts";
import { forget, opened } from "./conversation.ts";
import { byDay } from "./days.ts";
import { found, hasMore, keepSession, leaveOut, loadMore, search, sessions, wanted } from "./sessions.ts";

const sessionPath = (id: string) => `/chat/sessions/${encodeURIComponent(id)}`;

export function ChatList({ current, open, onClose }: { current: string | undefined; open: boolean; onClose: () => void }) {
  const list = wanted.value ? found.value : sessions.value;
  return (
    <section class="chats" data-open={open} aria-label="Chats" onKeyDown={(event) => event.key === "Escape" && onClose()}>
      <button type="button" onClick={() => { onClose(); startChat(); }}><Icon of={Plus} />New chat</button>
      {((sessions.value ?? []).length > 0 || wanted.value) && <input type="search" aria-label="Search chats" placeholder="Search chats" maxLength={200} onInput={(event) => search(event.currentTarget.value)} />}
      <div class="list">
        {byDay(list ?? []).map(([day, members]) => (
          <section key={day} aria-label={day}>
            <h2>{day}</h2>
            <ul>{members.map((session) => <ChatLine key={session.id} session={session} current={session.id === current} onOpen={onClose} />)}</ul>
          </section>
        ))}
        {hasMore.value && <button type="button" class="small quiet" onClick={() => attempt(loadMore)}>Show older chats</button>}
        <p class="hint" role="status">{wanted.value && (list === null ? "Searching…" : list.length === 0 ? "No chat has these words." : "")}</p>
      </div>
    </section>
  );
}

function ChatLine({ session, current, onOpen }: { session: ChatEntry; current: boolean; onOpen: () => void }) {
  const menu = useSignal(false);
  const renaming = useSignal(false);
  if (renaming.value) return <li><RenameField session={session} onEnd={() => (renaming.value = false)} /></li>;
  return (
    <li data-current={current}>
      <a href={href("chat", session.id)} aria-current={current ? "page" : undefined} title={session.title} onClick={onOpen}>{session.title}</a>
      <IconButton icon={Ellipsis} label={`More about ${session.title}`} aria-haspopup="dialog" onClick={() => (menu.value = true)} />
      {menu.value && <ChatMenu session={session} onRename={() => { menu.value = false; renaming.value = true; }} onClose={() => (menu.value = false)} />}
    </li>
  );
}

function RenameField({ session, onEnd }: { session: ChatEntry; onEnd: () => void }) {
  const field = useRef<HTMLInputElement>(null);
  const ended = useRef(false);
  useEffect(() => field.current!.select(), []);
  const end = (keep: boolean) => {
    // The field loses its focus when it is removed, too.
    if (ended.current) return;
    ended.current = true;
    const title = field.current!.value.trim();
    onEnd();
    if (keep && title && title !== session.title) {
      keepSession({ ...session, title });
      void attempt(async () => keepSession((await call<ChatTurns>("PATCH", sessionPath(session.id), { json: { title } })).session)).then((done) => done || keepSession(session));
    }
  };
  return <input ref={field} aria-label="Title of the chat" maxLength={200} defaultValue={session.title} onBlur={() => end(true)}
    onKeyDown={(event) => { if (event.key === "Enter") end(true); else if (event.key === "Escape") { event.stopPropagation(); end(false); } }} />;
}

function ChatMenu({ session, onRename, onClose }: { session: ChatEntry; onRename: () => void; onClose: () => void }) {
  const save = (name: string, type: string, format: (turns: ChatTurns) => string) => attempt(async () => {
    const text = format(await call<ChatTurns>("GET", `${sessionPath(session.id)}/turns`));
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type }));
    link.download = `${session.title.replace(/[^\p{L}\p{N}.-]+/gu, "-").slice(0, 50)}.${name}`;
    link.click();
    URL.revokeObjectURL(link.href);
    onClose();
  });
  return (
    <Dialog heading={session.title} onClose={onClose}>
      <div class="menu">
        <button type="button" class="quiet" onClick={onRename}><Icon of={Pencil} />Rename</button>
        <button type="button" class="quiet" onClick={() => save("md", "text/markdown", markdown)}><Icon of={Download} />Export as Markdown</button>
        <button type="button" class="quiet" onClick={() => save("json", "application/json", (turns) => JSON.stringify(turns, null, 2))}><Icon of={Download} />Export as JSON</button>
        <button type="button" class="quiet danger" onClick={() => { onClose(); void removeChat(session); }}><Icon of={Trash2} />Delete</button>
      </div>
    </Dialog>
  );
}

function markdown({ session, data }: ChatTurns): string {
  const turns = data.map(({ message, answer, status, citations }) => {
    const ending = status === "completed" ? "" : `\n\n*${status === "cancelled" ? "Stopped." : `The answer is ${status.replace("_", " ")}.`}*`;
    const sources = citations.map(({ marker, document, page }) => `\n- ${marker} ${document}, page ${page}`).join("");
    return `## ${message}\n\n${answer ?? ""}${ending}\n${sources && `${sources}\n`}`;
  });
  return `# ${session.title}\n\n${turns.join("\n")}`;
}

async function removeChat(session: ChatEntry): Promise<void> {
  const path = sessionPath(session.id);
  const isShown = segments.value[1] === session.id;
  const done = await attempt(async () => {
    await call("DELETE", path);
    await opened(session.id)?.stop();
  });
  if (!done) return;
  forget(session.id);
  leaveOut(session.id);
  if (isShown) go("/");
  const restore = async () => {
    keepSession((await call<ChatTurns>("POST", `${path}/restore`)).session);
    if (isShown) go(href("chat", session.id));
  };
  toast("The chat is deleted.", { seconds: 20, action: { label: "Undo", run: () => void attempt(restore) } });
}
