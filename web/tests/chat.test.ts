import assert from "node:assert/strict";
import { test } from "node:test";
import { byDay } from "../src/chat/days.ts";

test("chats are grouped by the calendar days of their last turn", () => {
  const now = new Date(2026, 10, 28, 0, 30);
  const at = (day: number, hour: number) => ({ updated_at: new Date(2026, 10, day, hour).getTime() / 1000 });
  const groups = byDay([at(28, 0), at(27, 23), at(27, 0), at(26, 23), at(22, 0), at(21, 23), at(1, 0), at(-10, 0)], now);
  assert.deepEqual(groups.map(([name, members]) => [name, members.length]), [
    ["Today", 1], ["Yesterday", 2], ["Last seven days", 2], ["Last thirty days", 2], ["Older", 1],
  ]);
  assert.deepEqual(byDay([], now), []);
});
