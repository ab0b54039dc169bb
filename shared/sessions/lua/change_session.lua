-- change_session: set the title of a session, or which of its turns is shown.
-- Uses: session
-- Arguments: id, owner, ttl_seconds:number, title, turn
--   An empty title or turn stays as it is. The current turn becomes the newest one that follows from this turn.
-- Keys: the session with its turns; owner:<owner>:sessions
-- Returns 'changed' | 'missing' | 'no_turn' (nothing has changed).

if not session_exists(owner, id) then return 'missing' end
adopt_messages(owner, id)
local key = session_key(owner, id)
if turn ~= '' then
  local tree, latest = as_table(redis.call('HGETALL', key .. ':tree')), {}
  if not tree[turn] then return 'no_turn' end
  for child, parent in pairs(tree) do
    if not latest[parent] or child > latest[parent] then latest[parent] = child end
  end
  local leaf = turn
  while latest[leaf] do leaf = latest[leaf] end
  redis.call('HSET', key, 'current', leaf)
end
if title ~= '' then redis.call('HSET', key, 'title', title) end
renew_session(owner, id, ttl_seconds)
return 'changed'
