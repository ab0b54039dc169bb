// The groups of the list of chats.

/** The chats in the groups of the list: today, yesterday, and so on. */
export function byDay<Entry extends { updated_at: number }>(list: Entry[], now = new Date()): [string, Entry[]][] {
  const midnight = new Date(now.getFullYear(), now.getMonth(), now.getDate()).getTime() / 1000;
  const groups: [string, Entry[]][] = [["Today", []], ["Yesterday", []], ["Last seven days", []], ["Last thirty days", []], ["Older", []]];
  const day = 86_400;
  for (const session of list) {
    const age = midnight - session.updated_at;
    groups[age <= 0 ? 0 : age <= day ? 1 : age <= 6 * day ? 2 : age <= 29 * day ? 3 : 4]![1].push(session);
  }
  return groups.filter(([, members]) => members.length > 0);
}
