-- read_turns: a session and the turns down to one of them, which renews its time to live.
-- Uses: session, job
-- Arguments: id, owner, ttl_seconds:number, turn
--   An empty turn is the current one.
-- Keys: the session with its turns; owner:<owner>:sessions; the records of its unfinished turns
-- Returns the fields of the session as a flat list, the number of its turns, and for each turn of the path, oldest first: its id, the one
-- before it, question, times, status, answer and error (empty if there is none), and the ids of those after the same turn, oldest first.
-- False when the owner has no such session.

if not session_exists(owner, id) then return false end
adopt_messages(owner, id)
renew_session(owner, id, ttl_seconds)
local key = session_key(owner, id)
local tree, siblings = as_table(redis.call('HGETALL', key .. ':tree')), {}
local count = 0
for turn, parent in pairs(tree) do
  count = count + 1
  siblings[parent] = siblings[parent] or {}
  table.insert(siblings[parent], turn)
end
local rows = {}
if turn == '' then turn = redis.call('HGET', key, 'current') or '' end
for i, turn in ipairs(path_to(tree, turn)) do
  local found = redis.call('HMGET', key .. ':turns', turn, turn .. ':times', turn .. ':status', turn .. ':answer', turn .. ':error')
  -- The record of an unfinished turn is there: only jobs that have ended are deleted.
  local status = found[3] or fields(turn, 'status').status or 'failed'
  table.sort(siblings[tree[turn]])
  rows[i] = { turn, tree[turn], found[1], found[2] or '{}', status, found[4] or '', found[5] or '', siblings[tree[turn]] }
end
return { redis.call('HGETALL', key), count, rows, redis.call('ZSCORE', updated_key(owner), redis.sha1hex(id)) or '' }
