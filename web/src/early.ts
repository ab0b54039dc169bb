// What the first view waits for, requested before the code that shows it has arrived. It imports nothing, so that it runs first.

export const KEY_NAME = "enginehouse.key";
/** An answer that is taken later than this may be out of date. */
const FRESH_SECONDS = 10;

export function credentials(): Record<string, string> {
  const key = sessionStorage.getItem(KEY_NAME);
  return key === null ? {} : { Authorization: `Bearer ${key}` };
}

/** The paths that the view of this address calls at once, in the views' own spelling. */
function pathsOf({ pathname, search }: Location): string[] {
  const [view, id] = pathname.split("/").filter(Boolean).slice(1);
  if (view === "chat" && id) return [`/chat/sessions/${id}/turns`];
  if (view === "documents") return ["/collections"];
  if (view === "jobs" && id) return [`/jobs/${id}`];
  if (view === "jobs" && !search) return ["/jobs?view=summary&limit=100", "/jobs/counts?"];
  if (view === "operations" && !id) return ["/admin/overview"];
  if (view === "usage") return ["/me"];
  if (view === "webhooks") return ["/webhooks", "/deliveries?limit=100"];
  return [];
}

const sentAt = performance.now();
const answers = new Map(pathsOf(location).map((path) => [path, fetch(path, { headers: credentials() })]));
// Whoever takes an answer sees its failure.
for (const answer of answers.values()) answer.catch(() => {});

/** The answer to an early request, once. */
export function takeEarlyAnswer(path: string): Promise<Response> | undefined {
  const answer = answers.get(path);
  answers.delete(path);
  return performance.now() - sentAt < FRESH_SECONDS * 1000 ? answer : undefined;
}

export function dropEarlyAnswers(): void {
  answers.clear();
}
