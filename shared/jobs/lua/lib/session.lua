-- Records of chat sessions, whose turns are a tree.
-- Uses: core
--
-- Keys:
--   session:<owner>:<key>           hash  a chat session; shared/sessions/store.py lists its fields
--   session:<owner>:<key>:tree      hash  turn -> the turn before it, '' for a first one; the id of a turn is that of its job
--   session:<owner>:<key>:turns     hash  <turn> (the question), <turn>:times, :status, :answer, :error, in JSON but for the status
--   session:<owner>:<key>:messages  list  messages of a session that an earlier version has written, until its next use
--   session:<owner>:<key>:deleted   hash  a deleted session, with :deleted:tree and :deleted:turns, as long as it can be restored
--   session:<owner>:updated         zset  keys of the owner's sessions that have turns -> time (ms) of their last turn
--   session:<owner>:bytes           hash  key -> bytes of the session; total -> bytes of all
--   owner:<owner>:sessions          zset  keys of the owner's sessions -> time (ms) at which each expires
--
-- Clients choose session ids, so a key is the SHA-1 of the id: each owner has ids of its own, and none is the key of something else.

local SESSION_PARTS = { '', ':tree', ':turns', ':messages' }
-- A sweep forgets no more expired sessions than this; the next one goes on.
local MAX_FORGOTTEN = 1000

local function session_key(owner, id) return PREFIX .. 'session:' .. owner .. ':' .. redis.sha1hex(id) end

local function sessions_key(owner) return PREFIX .. 'owner:' .. owner .. ':sessions' end

local function updated_key(owner) return PREFIX .. 'session:' .. owner .. ':updated' end

local function session_bytes_key(owner) return PREFIX .. 'session:' .. owner .. ':bytes' end

-- Expire a session, and the indexes that name it, this long from now.
local function renew_session(owner, id, ttl_seconds)
  local key = session_key(owner, id)
  for _, part in ipairs(SESSION_PARTS) do redis.call('EXPIRE', key .. part, ttl_seconds) end
  redis.call('ZADD', sessions_key(owner), digits(now + 1000 * ttl_seconds), redis.sha1hex(id))
  for _, index in ipairs({ sessions_key(owner), updated_key(owner), session_bytes_key(owner) }) do
    redis.call('EXPIRE', index, ttl_seconds)
  end
end

local function session_exists(owner, id) return redis.call('EXISTS', session_key(owner, id)) == 1 end

local function add_session_bytes(owner, digest, bytes)
  redis.call('HINCRBY', session_bytes_key(owner), digest, bytes)
  redis.call('HINCRBY', session_bytes_key(owner), 'total', bytes)
end

-- Take a session out of the indexes. Returns how many bytes it had.
local function forget_session(owner, digest)
  local bytes = tonumber(redis.call('HGET', session_bytes_key(owner), digest) or 0)
  redis.call('HDEL', session_bytes_key(owner), digest)
  if bytes > 0 then redis.call('HINCRBY', session_bytes_key(owner), 'total', -bytes) end
  redis.call('ZREM', updated_key(owner), digest)
  redis.call('ZREM', sessions_key(owner), digest)
  return bytes
end

local function forget_expired_sessions(owner)
  for _, digest in ipairs(redis.call('ZRANGEBYSCORE', sessions_key(owner), '-inf', digits(now), 'LIMIT', 0, MAX_FORGOTTEN)) do
    forget_session(owner, digest)
  end
end

-- The number of sessions of an owner. Those that have expired are forgotten.
local function count_sessions(owner)
  forget_expired_sessions(owner)
  return redis.call('ZCOUNT', sessions_key(owner), '(' .. digits(now), '+inf')
end

-- Bytes of all sessions of an owner.
local function bytes_of_sessions(owner)
  forget_expired_sessions(owner)
  return tonumber(redis.call('HGET', session_bytes_key(owner), 'total') or 0)
end

local function create_session(owner, id, ttl_seconds)
  redis.call('HSET', session_key(owner, id), 'id', id, 'created_at', timestamp, 'ttl_seconds', ttl_seconds)
  renew_session(owner, id, ttl_seconds)
end

-- Write a turn and make it the current one.
local function write_turn(owner, id, turn, parent, question)
  local key = session_key(owner, id)
  redis.call('HSET', key .. ':tree', turn, parent)
  redis.call('HSET', key .. ':turns', turn, question, turn .. ':times', cjson.encode({ created_at = now }))
  redis.call('HSET', key, 'id', id, 'current', turn)
  redis.call('ZADD', updated_key(owner), timestamp, redis.sha1hex(id))
  add_session_bytes(owner, redis.sha1hex(id), #question)
end

-- The turns of a session that an earlier version has written as a list of messages.
local function adopt_messages(owner, id)
  local key = session_key(owner, id)
  local messages = redis.call('LRANGE', key .. ':messages', 0, -1)
  if #messages == 0 then return end
  local is_valid, first = pcall(cjson.decode, messages[1])
  local title = is_valid and string.gsub(string.sub(first.content or '', 1, 120), '[\192-\244][\128-\191]*$', '') or ''
  redis.call('HSETNX', key, 'title', title)
  for i = 1, #messages - 1, 2 do
    -- Sorts before the ids of jobs.
    local turn = string.format('early_%06d', redis.call('HLEN', key .. ':tree') + 1)
    write_turn(owner, id, turn, redis.call('HGET', key, 'current') or '', messages[i])
    redis.call('HSET', key .. ':turns', turn .. ':status', 'completed', turn .. ':answer', messages[i + 1])
    add_session_bytes(owner, redis.sha1hex(id), #messages[i + 1])
  end
  redis.call('DEL', key .. ':messages')
  renew_session(owner, id, redis.call('HGET', key, 'ttl_seconds'))
end

-- The turn that a new one follows: `wanted`, the current one if that is empty, or none ('') if it is 'root'. Nil if it does not exist.
local function parent_of_new_turn(owner, id, wanted)
  local key = session_key(owner, id)
  adopt_messages(owner, id)
  if wanted == 'root' then return '' end
  if wanted == '' then return redis.call('HGET', key, 'current') or '' end
  return redis.call('HEXISTS', key .. ':tree', wanted) == 1 and wanted or nil
end

-- The beginning of a message without the marks of Markdown.
local function plain_title(text)
  for _, mark in ipairs({ '^#+%s*', '%*%*', '`+' }) do text = string.gsub(text, mark, '') end
  return text
end

-- Add a turn that its job will answer. `title` is that of a session without one. Returns the job of the turn that was added before, ''
-- if there is none. A repetition of another turn asks the same after the same turn.
local function add_turn(owner, id, turn, parent, question, title, repeated)
  local key = session_key(owner, id)
  local session = hash_fields(key, 'last_job', 'ttl_seconds')
  local earlier = is_set(repeated) and redis.call('HGET', key .. ':turns', repeated)
  if earlier then parent, question = redis.call('HGET', key .. ':tree', repeated), earlier end
  write_turn(owner, id, turn, parent, question)
  redis.call('HSET', key, 'last_job', turn)
  redis.call('HSETNX', key, 'title', plain_title(title))
  renew_session(owner, id, session.ttl_seconds)
  return session.last_job or ''
end

-- The key of the session that has a turn, deleted or not; nil if the session no longer exists.
local function key_of_turn(owner, id, turn)
  local key = session_key(owner, id)
  for _, found in ipairs({ key, key .. ':deleted' }) do
    if redis.call('HEXISTS', found .. ':tree', turn) == 1 then return found end
  end
end

-- Keep what a turn has been answered with. `messages` are the question and the answer, in JSON.
local function keep_answer(owner, id, turn, asked_at, messages)
  local key = key_of_turn(owner, id, turn)
  if not key then
    -- Asked by an earlier version, unless the session was deleted since and there is another with its id.
    local created_at = redis.call('HGET', session_key(owner, id), 'created_at')
    if not created_at or tonumber(created_at) > tonumber(asked_at) then return end
    write_turn(owner, id, turn, parent_of_new_turn(owner, id, ''), messages[1])
    key = session_key(owner, id)
  end
  redis.call('HSET', key .. ':turns', turn .. ':answer', messages[#messages])
  if key == session_key(owner, id) then add_session_bytes(owner, redis.sha1hex(id), #messages[#messages]) end
end

-- Write how a turn ended. `text` is what was written of an answer that is not complete, `problem` an error in JSON. Returns whether its
-- session still exists.
local function end_turn(owner, id, turn, status, times, text, problem)
  local key = key_of_turn(owner, id, turn)
  if not key then return session_exists(owner, id) end
  local turns, is_live = key .. ':turns', key == session_key(owner, id)
  redis.call('HSET', turns, turn .. ':status', status, turn .. ':times', cjson.encode(times))
  local parts = { answer = text ~= '' and cjson.encode({ content = text }) or nil, error = is_set(problem) and problem or nil }
  for part, value in pairs(parts) do
    redis.call('HSET', turns, turn .. ':' .. part, value)
    if is_live then add_session_bytes(owner, redis.sha1hex(id), #value) end
  end
  local ttl_seconds = redis.call('HGET', key, 'ttl_seconds')
  if not is_live then return false end
  redis.call('ZADD', updated_key(owner), timestamp, redis.sha1hex(id))
  renew_session(owner, id, ttl_seconds)
  return true
end

-- The turns from a first one down to `turn`, oldest first.
local function path_to(tree, turn)
  local upwards, path = {}, {}
  while is_set(turn) and tree[turn] do
    upwards[#upwards + 1] = turn
    turn = tree[turn]
  end
  for i = #upwards, 1, -1 do path[#path + 1] = upwards[i] end
  return path
end
