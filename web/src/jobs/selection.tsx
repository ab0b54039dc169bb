// What can be done to the selected jobs, or to all that match the filter.

import { useSignal, type Signal } from "@preact/signals";
import { Ban, RotateCcw, Trash2, X } from "lucide";
import type { JobCounts, JobSummary } from "../types.ts";
import { attempt, confirmed, Icon, IconButton, toast } from "../ui/basics.tsx";
import { count, number } from "../words.ts";
import type { Filter } from "./filter.ts";
import { APPLIES, changeJobs, type Action } from "./server.ts";

const DONE: Record<Action, string> = { cancel: "cancelled", retry: "started again", delete: "deleted" };
/** More jobs than this are changed only after a question. */
const ASKED_ABOVE = 100;

interface Props {
  chosen: JobSummary[];
  filter: Filter;
  counts: JobCounts | null;
  /** Whether the actions are for all jobs that match the filter. */
  all: Signal<boolean>;
  onAll: () => void;
  onChanged: () => void;
  onClear: () => void;
}

export function Selection({ chosen, filter, counts, all, onAll, onChanged, onClear }: Props) {
  const busy = useSignal(false);
  const ofStatuses = (statuses: readonly string[]) => statuses.reduce((sum, status) => sum + (counts?.status[status] ?? 0), 0);
  const matching = filter.status ? ofStatuses([filter.status]) : (counts?.total ?? 0);
  // Without complete counts it is not known which jobs all of them are.
  const offersAll = matching > chosen.length && counts?.complete === true;
  const statusesOf = (action: Action) => APPLIES[action].filter((status) => !filter.status || filter.status === status);
  const subjects = (action: Action) => chosen.filter(({ status, kind }) => APPLIES[action].includes(status) && (action !== "retry" || !kind.endsWith("batch")));
  const many = (action: Action) => (all.value ? ofStatuses(statusesOf(action)) : subjects(action).length);
  const act = async (action: Action) => {
    const number_ = many(action);
    if (action === "delete" && !(await confirmed(`Delete ${count(number_, "job")} with their results? This cannot be taken back.`, "Delete"))) return;
    if (action !== "delete" && number_ > ASKED_ABOVE && !(await confirmed(`${action === "cancel" ? "Cancel" : "Retry"} ${count(number_, "job")}?`, action === "cancel" ? "Cancel jobs" : "Retry"))) return;
    busy.value = true;
    await attempt(async () => {
      const { done, refused, reason } = await changeJobs(action, all.value ? filter : subjects(action).map(({ id }) => id));
      toast(`${count(done, "job")} ${DONE[action]}${refused > 0 ? `, ${number(refused)} refused: ${reason}` : ""}.`.replace("..", "."), { bad: refused > 0 });
    });
    busy.value = false;
    onChanged();
  };
  const button = (action: Action, label: string, icon: typeof Ban, kind = "") => (
    <button type="button" class={`small ${kind}`} disabled={busy.value || many(action) === 0} onClick={() => act(action)}><Icon of={icon} size={14} />{label}</button>
  );
  return (
    <div class="selection" role="group" aria-label="Selection">
      <span role="status">{all.value ? `All ${number(matching)} that match` : `${number(chosen.length)} selected`}</span>
      {offersAll && !all.value && <button type="button" class="small quiet" onClick={onAll}>Select all {number(matching)} that match</button>}
      {button("cancel", "Cancel", Ban)}
      {button("retry", "Retry", RotateCcw)}
      {button("delete", "Delete", Trash2, "danger")}
      <IconButton icon={X} label="Select nothing" onClick={onClear} />
    </div>
  );
}
