// What the first view waits for, requested before the code that shows it has arrived. It imports nothing, so that it runs first.

export const KEY_NAME = "enginehouse.key";
/** An answer that is taken later than this may be out of date. */
const FRESH_SECONDS = 10;
/** Other ids are of nothing, and a path that the view spells in another way would not be taken. */
const PLAIN_ID = /^[\w-]+$/;

export function credentials(): Record<string, string> {
  const key = sessionStorage.getItem(KEY_NAME);
  return key === null ? {} : { Authorization: `Bearer ${key}` };
}

/** The paths that the view of this address calls at once, in the views' own spelling. */
function pathsOf({ pathname, search }: Location): string[] {
  const [view, id] = pathname.split("/").filter(Boolean).slice(1);
  if (id && !PLAIN_ID.test(id)) return [];
  if (view === "chat" && id) return [`/chat/sessions/${id}/turns`];
  if (view === "documents") return ["/collections"];
  if (view === "jobs" && id) return [`/jobs/${id}`];
  if (view === "jobs" && !search) return ["/jobs?view=summary&limit=100", "/jobs/counts?"];
  if (view === "operations" && !id) return ["/admin/overview"];
  if (view === "usage") return ["/me"];
  if (view === "webhooks") return ["/webhooks", "/deliveries?limit=100"];
  return [];
}

/** What the lamp in the header shows. */
const LAMP = ["/health/ready", "/attention"];
const answers = new Map([...pathsOf(location), ...LAMP].map((path) => [path, fetch(path, { headers: credentials() })]));
// The caller that takes an answer handles its failure.
for (const answer of answers.values()) answer.catch(() => {});

setTimeout(dropEarlyAnswers, FRESH_SECONDS * 1000);

/** The answer to an early request, once. */
export function takeEarlyAnswer(path: string): Promise<Response> | undefined {
  const answer = answers.get(path);
  answers.delete(path);
  return answer;
}

/** Forgets the answers that nobody has taken. A body that is not read would keep its connection. */
export function dropEarlyAnswers(): void {
  for (const answer of answers.values()) answer.then(({ body }) => body?.cancel(), () => {});
  answers.clear();
}
