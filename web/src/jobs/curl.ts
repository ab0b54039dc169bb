// The command that makes the request of a job again.

export type Request = Record<string, unknown> & { messages?: { role: string; content: unknown }[]; prompt?: unknown; message?: string };

/** The fields of a job's request that `POST /generate` has too. */
const SENT = ["model", "messages", "prompt", "max_tokens", "temperature", "top_p", "top_k", "stop", "seed", "deterministic", "rewrite"];
/** Fields that are sent in another form, or not: a chat's earlier turns are not part of the request. */
const OTHERS = ["message", "collection", "retrieval", "session"];

/** A curl command, or null for a request of another call, which has fields that this one lacks. */
export function asCurl(request: Request, { server, signedIn }: { server: string; signedIn: boolean }): string | null {
  if (Object.keys(request).some((name) => !SENT.includes(name) && !OTHERS.includes(name))) return null;
  if (request["retrieval"] && !request["collection"]) return null;
  const body: Record<string, unknown> = Object.fromEntries(SENT.filter((name) => request[name] !== undefined).map((name) => [name, request[name]]));
  if (request.message) body["messages"] = [{ role: "user", content: request.message }];
  if (request["collection"]) body["collection"] = { name: request["collection"], ...withoutNull(request["retrieval"] as object) };
  const headers = ["Content-Type: application/json", "Prefer: wait=60", ...(signedIn ? ["Authorization: Bearer YOUR_KEY"] : [])];
  return `curl ${server}/generate ${headers.map((header) => `-H ${quoted(header)}`).join(" ")} -d ${quoted(JSON.stringify(body))}`;
}

const quoted = (text: string) => `'${text.replaceAll("'", "'\\''")}'`;

const withoutNull = (fields: object) => Object.fromEntries(Object.entries(fields ?? {}).filter(([, value]) => value !== null));
