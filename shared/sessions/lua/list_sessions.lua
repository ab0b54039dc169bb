-- list_sessions: sessions of an owner that have turns, the one with the latest turn first.
-- Uses: session
-- Arguments: owner, limit:number, updated_at, digest
--   updated_at and digest are those of the last session of the page before; empty for the first page.
-- Keys: session:<owner>:updated, the sessions; owner:<owner>:sessions
-- Returns for each session its digest, updated_at, the number of its turns, its bytes, and its fields as a flat list.

forget_expired_sessions(owner)
local start = 0
if updated_at ~= '' then
  -- The session may have moved up or been deleted since.
  if redis.call('ZSCORE', updated_key(owner), digest) == updated_at then
    start = redis.call('ZREVRANK', updated_key(owner), digest) + 1
  else
    start = redis.call('ZCOUNT', updated_key(owner), '(' .. updated_at, '+inf')
  end
end
local found = redis.call('ZREVRANGE', updated_key(owner), start, start + limit - 1, 'WITHSCORES')
local rows = {}
for i = 1, #found, 2 do
  local key = PREFIX .. 'session:' .. owner .. ':' .. found[i]
  local bytes = redis.call('HGET', session_bytes_key(owner), found[i]) or 0
  rows[#rows + 1] = { found[i], found[i + 1], redis.call('HLEN', key .. ':tree'), bytes, redis.call('HGETALL', key) }
end
return rows
