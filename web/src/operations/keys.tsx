// API keys, for administrators: who may do what, and until when. The secret of a key is shown once.

import { useSignal } from "@preact/signals";
import { ArrowLeft, Ban, Check, Hourglass, Plus } from "lucide";
import { useRef } from "preact/hooks";
import { ApiError, call } from "../api.ts";
import { useResource } from "../resource.ts";
import type { ApiKey, ApiKeyWithSecret, List } from "../types.ts";
import { attempt, confirmed, CopyButton, Dialog, Empty, Icon, Problem, Time, toast } from "../ui/basics.tsx";
import { number, problem } from "../words.ts";
import { keyState, limitsOf, OWNER_SCOPES, readLimits, rightsOf, SCOPES, TOKEN_LIMITS } from "./rights.ts";

const LOOK_SECONDS = 15;
const DAY = 86400;
/** How the state of a key is shown, in the colours of jobs. */
const STATES = {
  active: { words: "Active", icon: Check, colour: "completed" },
  expired: { words: "Expired", icon: Hourglass, colour: "expired" },
  revoked: { words: "Revoked", icon: Ban, colour: "cancelled" },
};
const EXPIRIES: [string, number | null][] = [["Never", null], ["In a day", DAY], ["In 30 days", 30 * DAY], ["In 90 days", 90 * DAY], ["In a year", 365 * DAY]];

export function KeysView() {
  const keys = useResource("keys", async (abort) => (await call<List<ApiKey>>("GET", "/admin/keys", { signal: abort })).data, LOOK_SECONDS);
  const creating = useSignal(false);
  const limiting = useSignal<ApiKey | null>(null);
  const made = useSignal<ApiKeyWithSecret | null>(null);
  const list = keys.data.value;
  const show = (key: ApiKeyWithSecret) => {
    made.value = key;
    keys.reload();
  };
  // The newest first, and those that no longer work at the end.
  const shown = [...(list ?? [])].reverse().sort((one, other) => Number(keyState(one) !== "active") - Number(keyState(other) !== "active"));
  return (
    <section class="view" aria-label="API keys">
      <div class="view-head">
        <h1>API keys</h1>
        <a class="button quiet" href="/ui/operations"><Icon of={ArrowLeft} />Operations</a>
        <button type="button" class="primary" disabled={list === null} onClick={() => (creating.value = true)}><Icon of={Plus} />New key</button>
      </div>
      <Problem error={keys.error.value} />
      {list !== null && list.length === 0 && <Empty><h2>No key yet</h2><p>Without a key, only the user of the server's own machine may use it. Once the first key exists, every call needs one.</p></Empty>}
      <div class="cards">{shown.map((key) => <KeyCard key={key.id} of={key} onChange={keys.reload} onLimits={() => (limiting.value = key)} onSecret={show} />)}</div>
      {creating.value && <KeyDialog first={list !== null && list.length === 0} onClose={() => (creating.value = false)} onCreated={(key) => { creating.value = false; show(key); }} />}
      {limiting.value && <LimitsDialog key={limiting.value.id} of={limiting.value} onClose={() => (limiting.value = null)} onChanged={() => { limiting.value = null; keys.reload(); }} />}
      {made.value && (
        <Dialog heading={`Secret of ${made.value.name}`} onClose={() => (made.value = null)}>
          <p>Store it now: it is shown only once.</p>
          <div class="curl"><pre>{made.value.secret}</pre><CopyButton text={made.value.secret} label="Copy the secret" /></div>
        </Dialog>
      )}
    </section>
  );
}

function KeyCard({ of: key, onChange, onLimits, onSecret }: { of: ApiKey; onChange: () => void; onLimits: () => void; onSecret: (key: ApiKeyWithSecret) => void }) {
  const path = `/admin/keys/${key.id}`;
  const state = keyState(key);
  const limits = limitsOf(key.limits);
  const rotate = async () => {
    if (await confirmed(`Replace the key ${key.name} by one with the same rights? The old one expires in a day.`, "Replace")) await attempt(async () => onSecret(await call<ApiKeyWithSecret>("POST", `${path}/rotate`)));
  };
  const revoke = async () => {
    if (await confirmed(`Revoke the key ${key.name} of ${key.owner}? Requests with it are refused at once.`, "Revoke")) await attempt(() => call("DELETE", path).then(() => { toast(`The key ${key.name} is revoked.`); onChange(); }));
  };
  return (
    <article class="card" aria-label={`Key ${key.name}, ${key.id}`}>
      <header><h2>{key.name}</h2><span class="state" data-state={STATES[state].colour}><Icon of={STATES[state].icon} size={14} />{STATES[state].words}</span></header>
      <p class="hint">Owner {key.owner}{key.prefix && <>, begins with <code>{key.prefix}</code></>}{key.from_file && ", from the keys file"}</p>
      {rightsOf(key).map((line) => <p key={line}>{line}</p>)}
      {limits && <p>{limits}</p>}
      <p class="hint">{key.last_used_at === null ? "Never used" : <>Last used <Time at={key.last_used_at} /></>}{state === "active" && key.expires_at !== null && <>, expires {new Date(key.expires_at * 1000).toLocaleString("en", { dateStyle: "medium", timeStyle: "short" })}</>}</p>
      {state === "active" && (
        <div class="bar">
          <button type="button" class="small" aria-label={`Limits of ${key.name}`} onClick={onLimits}>Limits</button>
          {!key.from_file && <button type="button" class="small" aria-label={`Rotate ${key.name}`} onClick={rotate}>Rotate</button>}
          <button type="button" class="small danger spread" aria-label={`Revoke ${key.name}`} onClick={revoke}>Revoke</button>
        </div>
      )}
    </article>
  );
}

function LimitsDialog({ of: key, onClose, onChanged }: { of: ApiKey; onClose: () => void; onChanged: () => void }) {
  const form = useRef<HTMLFormElement>(null);
  const error = useSignal<string | null>(null);
  const submit = async (event: Event) => {
    event.preventDefault();
    const limits = readLimits(new FormData(form.current!));
    if (typeof limits === "string") {
      error.value = limits;
      return;
    }
    try {
      await call("PATCH", `/admin/keys/${key.id}`, { json: { limits } });
      toast(`The limits of ${key.name} are changed.`);
      onChanged();
    } catch (caught) {
      if (!(caught instanceof ApiError)) throw caught;
      error.value = problem(caught);
    }
  };
  return (
    <Dialog heading={`Limits of ${key.name}`} onClose={onClose}>
      <form ref={form} onSubmit={submit} noValidate>
        <LimitFields of={key.limits} />
        <p class="hint">They apply in addition to the limits of the owner {key.owner}.</p>
        {error.value && <p class="notice bad" role="alert">{error.value}</p>}
        <div class="dialog-foot"><button type="submit" class="primary">Save</button></div>
      </form>
    </Dialog>
  );
}

function LimitFields({ of: limits }: { of: ApiKey["limits"] }) {
  return (
    <div class="fields">
      {TOKEN_LIMITS.map(([name, time]) => (
        <div class="field" key={name}><label for={`key-${name}`}>Tokens {time}</label><input id={`key-${name}`} name={name} inputMode="numeric" autoComplete="off" maxLength={24} placeholder="no limit" defaultValue={limits[name] ? number(limits[name]) : ""} /></div>
      ))}
    </div>
  );
}

function KeyDialog({ first, onClose, onCreated }: { first: boolean; onClose: () => void; onCreated: (key: ApiKeyWithSecret) => void }) {
  const form = useRef<HTMLFormElement>(null);
  const error = useSignal<string | null>(null);
  const submit = async (event: Event) => {
    event.preventDefault();
    const data = new FormData(form.current!);
    const names = (field: string) => String(data.get(field)).split(",").map((name) => name.trim()).filter(Boolean);
    const only = (field: string) => (names(field).length > 0 ? names(field) : null);
    const expiry = EXPIRIES[Number(data.get("expiry"))]![1];
    const body = { name: String(data.get("name")).trim(), owner: String(data.get("owner")).trim() || null, scopes: data.getAll("scope").map(String), models: only("models"), collections: only("collections") };
    if (body.scopes.length === 0) {
      error.value = "Choose at least one scope.";
      return;
    }
    const limits = readLimits(data);
    if (typeof limits === "string") {
      error.value = limits;
      return;
    }
    try {
      onCreated(await call<ApiKeyWithSecret>("POST", "/admin/keys", { json: { ...body, limits, ...(expiry === null ? {} : { expires_in: expiry }) } }));
    } catch (caught) {
      if (!(caught instanceof ApiError)) throw caught;
      error.value = problem(caught);
    }
  };
  return (
    <Dialog heading="New key" onClose={onClose}>
      <form ref={form} onSubmit={submit} noValidate>
        {first && <p class="notice">This is the first key. From now on, every call needs one: give it the scope admin, and sign in with it.</p>}
        <label for="key-name">Name</label><input id="key-name" name="name" autoFocus maxLength={63} required />
        <label for="key-owner">Owner, whose jobs and documents it sees</label><input id="key-owner" name="owner" maxLength={63} placeholder="the name of the key" />
        <fieldset class="scopes"><legend>Scopes</legend>{SCOPES.map((scope) => <label key={scope}><input type="checkbox" name="scope" value={scope} defaultChecked={OWNER_SCOPES.includes(scope)} />{scope}</label>)}</fieldset>
        <label for="key-models">Models that it may use, separated by commas</label><input id="key-models" name="models" placeholder="all" />
        <label for="key-collections">Collections that it may use, separated by commas</label><input id="key-collections" name="collections" placeholder="all" />
        <LimitFields of={{}} />
        <div class="field"><label for="key-expiry">Expires</label><select id="key-expiry" name="expiry">{EXPIRIES.map(([words], place) => <option key={words} value={place}>{words}</option>)}</select></div>
        {error.value && <p class="notice bad" role="alert">{error.value}</p>}
        <div class="dialog-foot"><button type="submit" class="primary">Create</button></div>
      </form>
    </Dialog>
  );
}
