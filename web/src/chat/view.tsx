// The chat: the list of chats, the turns of one, and the composer.

import { useSignal } from "@preact/signals";
import { ArrowDown, MessageSquare, Terminal, Upload } from "lucide";
import { useEffect, useLayoutEffect, useRef } from "preact/hooks";
import { PageSheet } from "../documents/page_sheet.tsx";
import { identity, signIn } from "../key.ts";
import { refreshes } from "../resource.ts";
import { segments } from "../router.ts";
import "../start.tsx";
import { loadCollections, loadModels, models } from "../store.ts";
import type { Citation } from "../types.ts";
import { CopyButton, Icon, Problem } from "../ui/basics.tsx";
import { Composer } from "./composer.tsx";
import { conversation, opened, type Conversation } from "./conversation.ts";
import { ChatList } from "./list.tsx";
import { options } from "./options.ts";
import { loadSessions, sessions } from "./sessions.ts";
import { TurnView } from "./turn.tsx";

const CHOICES_SECONDS = 15;
/** How near to its end, in pixels, the view has to be to follow the answer. */
const NEAR = 80;
/** So many turns of a long chat are drawn at first. */
const TURNS = 40;

export function ChatView() {
  const id = segments.value[0] === "chat" ? segments.value[1] : undefined;
  const talk = conversation(id);
  const listOpen = useSignal(false);
  const cited = useSignal<Citation | null>(null);
  useEffect(() => {
    const load = () => {
      if (document.hidden || signIn.value !== null) return;
      void loadModels();
      void loadCollections();
      void loadSessions();
    };
    load();
    const timer = setInterval(load, CHOICES_SECONDS * 1000);
    return () => clearInterval(timer);
  }, [identity.value, refreshes.value]);
  useEffect(() => {
    const entry = sessions.value?.find((session) => session.id === id);
    if (entry) opened(entry.id)?.compare(entry);
  }, [sessions.value]);
  useEffect(() => {
    cited.value = null;
    listOpen.value = false;
  }, [talk]);
  return (
    <div class="chat">
      <h1 class="unseen">Chat</h1>
      <ChatList current={id} open={listOpen.value} onClose={() => (listOpen.value = false)} />
      <Talk key={talk} talk={talk} onList={() => (listOpen.value = !listOpen.value)} onCite={(citation) => (cited.value = citation)} />
      {cited.value && <PageSheet key={cited.value} document={cited.value.document_id} name={cited.value.document} page={cited.value.page}
        start={cited.value.start} end={cited.value.end} quote={cited.value.quote} onClose={() => (cited.value = null)} />}
    </div>
  );
}

function Talk({ talk, onList, onCite }: { talk: Conversation; onList: () => void; onCite: (citation: Citation) => void }) {
  const scroller = useRef<HTMLDivElement>(null);
  const inner = useRef<HTMLDivElement>(null);
  const following = useRef(true);
  const lastTop = useRef(0);
  const away = useSignal(false);
  const toEnd = () => {
    following.current = true;
    away.value = false;
    scroller.current!.scrollTop = scroller.current!.scrollHeight;
  };
  useLayoutEffect(() => {
    const grown = new ResizeObserver(() => {
      const box = scroller.current!;
      if (talk.turns.peek().length === 0) return;
      if (following.current) box.scrollTop = box.scrollHeight;
      else away.value = box.scrollHeight - box.scrollTop - box.clientHeight > NEAR;
    });
    grown.observe(inner.current!);
    grown.observe(scroller.current!);
    return () => grown.disconnect();
  }, []);
  const scrolled = () => {
    const box = scroller.current!;
    const near = box.scrollHeight - box.scrollTop - box.clientHeight < NEAR;
    // The answer grows below the view, too: only moving up means that the reader wants to stay.
    if (near) following.current = true;
    else if (box.scrollTop < lastTop.current - 1) following.current = false;
    lastTop.current = box.scrollTop;
    away.value = !near && !following.current;
  };
  const act = (action: () => Promise<void>) => {
    following.current = true;
    void action();
    requestAnimationFrame(toEnd);
  };
  const ask = (question: string) => act(() => talk.ask(question));
  const most = useSignal(TURNS);
  const turns = talk.turns.value;
  const hidden = Math.max(0, turns.length - most.value);
  return (
    <div class="talk">
      <div ref={scroller} class="turns" tabIndex={0} role="region" aria-label="Conversation" onScroll={scrolled}>
        <div ref={inner}>
          <Problem error={talk.problem.value} />
          {turns.length === 0 && !talk.loading.value && talk.problem.value === null && (talk.isNew ? <FirstVisit onTry={ask} /> : <p class="hint">This chat has no messages on this server.</p>)}
          {hidden > 0 && <button type="button" class="small quiet earlier" onClick={() => { following.current = false; most.value += TURNS; }}>Show earlier messages ({hidden})</button>}
          {/* By place, so that the arrows between versions keep the focus. */}
          {turns.slice(hidden).map((turn, place) => <TurnView key={hidden + place} turn={turn} talk={talk} onCite={onCite} onAct={act} />)}
        </div>
      </div>
      <p class="unseen" role="status">{talk.announcement.value}</p>
      <Composer talk={talk} onAsk={ask} onList={onList}>
        {away.value && turns.length > 0 && <button type="button" class="to-end small" onClick={toEnd}><Icon of={ArrowDown} />To the end</button>}
      </Composer>
    </div>
  );
}

const EXAMPLES = ["Explain a job queue to a new colleague in five sentences.", "Write a Python function that merges two sorted lists, with a test.", "Compare Redis lists and streams in a table."];

function FirstVisit({ onTry }: { onTry: (question: string) => void }) {
  const model = options.model.value || models.value?.find((one) => one.default)?.name;
  const curl = `curl ${location.origin}/chat -H 'Content-Type: application/json' \\\n  -d '${JSON.stringify({ message: "Hello", ...(model ? { model } : {}) })}'`;
  return (
    <div class="first">
      <h1>Ask the models of this server</h1>
      <p class="lead">Enginehouse runs language models on your own machines. Chat here, let it answer from your documents with citations, or call it from your code: everything becomes a job that you can watch.</p>
      <div class="tries">
        {EXAMPLES.map((text) => <button key={text} type="button" disabled={signIn.value !== null} onClick={() => onTry(text)}><Icon of={MessageSquare} /><span>{text}</span></button>)}
        <a class="button" href="/ui/documents"><Icon of={Upload} /><span>Drop documents, and ask about them</span></a>
      </div>
      <p class="hint"><Icon of={Terminal} /> The same from your code, or see the <a href="/docs">API reference</a>:</p>
      <div class="curl"><pre>{curl}</pre><CopyButton text={curl} label="Copy the curl command" /></div>
    </div>
  );
}

