-- read_messages: the questions and answers that lead to a turn, which renews the session's time to live.
-- Uses: session
-- Arguments: id, owner, ttl_seconds:number, turn
--   turn is the one that is to be answered: those before it are read. If it is empty, or not in the session, all up to the current one.
-- Keys: the session with its turns; owner:<owner>:sessions
-- Returns question and answer of each completed turn in JSON, oldest first, or false when the owner has no such session.

if not session_exists(owner, id) then return false end
adopt_messages(owner, id)
renew_session(owner, id, ttl_seconds)
local key = session_key(owner, id)
local tree = as_table(redis.call('HGETALL', key .. ':tree'))
local messages = {}
for _, before in ipairs(path_to(tree, tree[turn] or redis.call('HGET', key, 'current') or '')) do
  local found = hash_fields(key .. ':turns', before, before .. ':status', before .. ':answer')
  if found[before .. ':status'] == 'completed' and found[before .. ':answer'] then
    messages[#messages + 1] = found[before]
    messages[#messages + 1] = found[before .. ':answer']
  end
end
return messages
