// Deliveries of webhooks, one line each, with their tries.

import { Check, CircleX, Clock, RotateCcw } from "lucide";
import { call } from "../api.ts";
import { href } from "../router.ts";
import type { Delivery } from "../types.ts";
import { attempt, Icon, now, Time, toast } from "../ui/basics.tsx";
import { count, duration, readable, title } from "../words.ts";

interface Props {
  label: string;
  deliveries: Delivery[];
  onSent: () => void;
  /** Whether each line says where it goes to and lists its tries, as on the page of its job. Else it links to its job. */
  addresses?: boolean;
}

export function Deliveries({ label, deliveries, onSent, addresses = false }: Props) {
  return <ul class="delivery-list" aria-label={label}>{deliveries.map((one) => <Line key={one.id} of={one} onSent={onSent} addresses={addresses} />)}</ul>;
}

function Line({ of: delivery, onSent, addresses }: { of: Delivery; onSent: () => void; addresses: boolean }) {
  const again = () => attempt(async () => {
    await call("POST", `/deliveries/${delivery.id}/redeliver`, { json: {} });
    toast("It is sent again.");
    onSent();
  });
  const tries = delivery.attempts.toReversed();
  const last = tries[0];
  const next = delivery.status === "pending" ? delivery.next_attempt_at : null;
  const wait = next === null ? 0 : next - Math.max(now.value, last?.started_at ?? 0);
  const event = title(delivery.event.replace(".", " "));
  return (
    <li>
      <State delivery={delivery} />
      <span class="delivery-what"><strong>{event}</strong> {addresses ? <span class="hint">{delivery.url}</span> : <a href={href("jobs", delivery.job, { tab: "deliveries" })}>{delivery.job.slice(-6)}</a>}</span>
      <span class="hint">{last ? tryText(last) : "Not tried yet"}{next !== null && last && (wait > 0 ? `, next in ${duration(wait)}` : ", next now")}</span>
      <span class="hint right"><Time at={last?.started_at ?? delivery.created_at} /></span>
      <button type="button" class="small" aria-label={`Redeliver ${event} of ${delivery.job.slice(-6)}`} onClick={again}>Redeliver</button>
      {delivery.reason && <p class="why">{readable(delivery.reason)}</p>}
      {(last?.answer || (addresses && tries.length > 1)) && (
        <details class="hint" open={addresses}><summary>{tries.length > 1 ? count(tries.length, "try", "tries") : "Answer"}</summary>
          {tries.map((one) => <div key={one.number}>{tries.length > 1 && <p>{tryText(one)} <Time at={one.started_at} /></p>}{one.answer && <pre class="raw">{one.answer}</pre>}</div>)}
        </details>
      )}
    </li>
  );
}

const tryText = (one: Delivery["attempts"][number]) =>
  `Try ${one.number}: ${one.status ?? one.error ?? one.outcome ?? "on its way"}${one.latency ? ` after ${duration(one.latency)}` : ""}`;

/** One that is tried again stands out as much as one that was given up; one that arrived does not. */
function State({ delivery: { status, attempts } }: { delivery: Delivery }) {
  const [state, words, icon] = status === "delivered" ? ["completed", "Delivered", Check] as const
    : status === "failed" ? ["failed", "Failed", CircleX] as const
      : attempts.length > 0 ? ["expired", "Retrying", RotateCcw] as const : ["queued", "Pending", Clock] as const;
  return <span class="state" data-state={state}><Icon of={icon} size={14} />{words}</span>;
}
