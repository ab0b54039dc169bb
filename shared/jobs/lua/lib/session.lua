-- Records of chat sessions.
-- Uses: core
--
-- Keys:
--   session:<id>             hash    a chat session; shared/sessions/store.py lists its fields
--   session_messages:<id>    list    its messages, in JSON
--
-- Clients choose session ids, so no key may consist of another session's key and a suffix: it would be the key of a session.

local function session_key(id) return PREFIX .. 'session:' .. id end

local function messages_key(id) return PREFIX .. 'session_messages:' .. id end

local function renew_session(id, ttl_seconds)
  redis.call('EXPIRE', session_key(id), ttl_seconds)
  redis.call('EXPIRE', messages_key(id), ttl_seconds)
end

-- Make a job the newest turn of the owner's session. Returns the turn before it ('' for none), nil when there is no such session.
local function add_turn(id, owner, job)
  local session = hash_fields(session_key(id), 'owner', 'last_job', 'ttl_seconds')
  if session.owner ~= owner then return nil end
  redis.call('HSET', session_key(id), 'last_job', job)
  renew_session(id, session.ttl_seconds)
  return session.last_job or ''
end

-- A session that was deleted in the meantime stays deleted.
local function append_messages(id, messages)
  local ttl_seconds = redis.call('HGET', session_key(id), 'ttl_seconds')
  if not ttl_seconds then return end
  for _, message in ipairs(messages) do redis.call('RPUSH', messages_key(id), message) end
  renew_session(id, ttl_seconds)
end
