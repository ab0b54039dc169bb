-- Records of chat sessions.
-- Uses: core
--
-- Keys:
--   session:<owner>:<key>           hash    a chat session; shared/sessions/store.py lists its fields
--   session:<owner>:<key>:messages  list    its messages, in JSON
--   owner:<owner>:sessions          zset    keys of the owner's sessions -> time (ms) at which each expires
--
-- Clients choose session ids, so a key is the SHA-1 of the id: each owner has ids of its own, and none is the key of something else.

local function session_key(owner, id) return PREFIX .. 'session:' .. owner .. ':' .. redis.sha1hex(id) end

local function messages_key(owner, id) return session_key(owner, id) .. ':messages' end

local function sessions_key(owner) return PREFIX .. 'owner:' .. owner .. ':sessions' end

local function renew_session(owner, id, ttl_seconds)
  redis.call('EXPIRE', session_key(owner, id), ttl_seconds)
  redis.call('EXPIRE', messages_key(owner, id), ttl_seconds)
  redis.call('ZADD', sessions_key(owner), digits(now + 1000 * ttl_seconds), redis.sha1hex(id))
  redis.call('EXPIRE', sessions_key(owner), ttl_seconds)
end

local function session_exists(owner, id) return redis.call('EXISTS', session_key(owner, id)) == 1 end

-- The number of sessions of an owner. Those that have expired are forgotten.
local function count_sessions(owner)
  redis.call('ZREMRANGEBYSCORE', sessions_key(owner), '-inf', digits(now))
  return redis.call('ZCARD', sessions_key(owner))
end

local function create_session(owner, id, ttl_seconds)
  redis.call('HSET', session_key(owner, id), 'created_at', timestamp, 'ttl_seconds', ttl_seconds)
  renew_session(owner, id, ttl_seconds)
end

local function delete_session(owner, id)
  redis.call('ZREM', sessions_key(owner), redis.sha1hex(id))
  return redis.call('DEL', session_key(owner, id), messages_key(owner, id))
end

-- Make a job the newest turn of a session. Returns the previous turn, '' if there is none, or nil if the session does not exist.
local function add_turn(owner, id, job)
  local session = hash_fields(session_key(owner, id), 'last_job', 'ttl_seconds')
  if not session.ttl_seconds then return nil end
  redis.call('HSET', session_key(owner, id), 'last_job', job)
  renew_session(owner, id, session.ttl_seconds)
  return session.last_job or ''
end

-- A session that was deleted in the meantime stays deleted.
local function append_messages(owner, id, messages)
  local ttl_seconds = redis.call('HGET', session_key(owner, id), 'ttl_seconds')
  if not ttl_seconds then return end
  for _, message in ipairs(messages) do redis.call('RPUSH', messages_key(owner, id), message) end
  renew_session(owner, id, ttl_seconds)
end
