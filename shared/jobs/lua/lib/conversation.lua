-- Conversations of /v1: items that responses read and add to.
-- Uses: core
--
-- Keys:
--   conversation:<id>            hash  owner, key (the id of the API key that created it, or ''), created_at, ttl_seconds, metadata in
--                                      JSON, last (the number of the newest item)
--   conversation:<id>:items      hash  id of an item -> the item in JSON
--   conversation:<id>:order      zset  id of an item -> its number
--   conversation:<id>:pending    list  jobs of responses whose items have not been added yet, oldest first
--   owner:<owner>:conversations  zset  the owner's conversations -> time (ms) at which each expires
--   owner:<owner>:conversation_bytes  hash  id of a conversation -> bytes of its items; total -> bytes of all
--
-- Only the API touches these keys. All expire some time after the last use of a conversation.

local function conversation_key(id) return PREFIX .. 'conversation:' .. id end

local function conversations_key(owner) return PREFIX .. 'owner:' .. owner .. ':conversations' end

local function conversation_bytes_key(owner) return PREFIX .. 'owner:' .. owner .. ':conversation_bytes' end

local function owns_conversation(id, owner) return redis.call('HGET', conversation_key(id), 'owner') == owner end

-- Expire a conversation, and the indexes that name it, its time to live from now on.
local function renew_conversation(id)
  local found = hash_fields(conversation_key(id), 'owner', 'ttl_seconds')
  for _, part in ipairs({ '', ':items', ':order', ':pending' }) do
    redis.call('EXPIRE', conversation_key(id) .. part, found.ttl_seconds)
  end
  redis.call('ZADD', conversations_key(found.owner), digits(now + 1000 * found.ttl_seconds), id)
  for _, index in ipairs({ conversations_key(found.owner), conversation_bytes_key(found.owner) }) do
    redis.call('EXPIRE', index, found.ttl_seconds)
  end
end

local function add_conversation_bytes(id, owner, bytes)
  redis.call('HINCRBY', conversation_bytes_key(owner), id, bytes)
  redis.call('HINCRBY', conversation_bytes_key(owner), 'total', bytes)
end

-- Take a conversation out of the indexes.
local function forget_conversation(id, owner)
  local bytes = tonumber(redis.call('HGET', conversation_bytes_key(owner), id) or 0)
  if bytes > 0 then redis.call('HINCRBY', conversation_bytes_key(owner), 'total', -bytes) end
  redis.call('HDEL', conversation_bytes_key(owner), id)
  redis.call('ZREM', conversations_key(owner), id)
end

-- Add items that a conversation does not have yet, in this order.
local function add_to_conversation(id, owner, items)
  local key = conversation_key(id)
  for _, added in ipairs(items) do
    if redis.call('HSETNX', key .. ':items', added.id, added.item) == 1 then
      redis.call('ZADD', key .. ':order', redis.call('HINCRBY', key, 'last', 1), added.id)
      add_conversation_bytes(id, owner, #added.item)
    end
  end
end

-- Let the items of a response be added once its job has completed. One of a deleted conversation has nowhere to add them.
local function await_response(id, owner, job)
  if not owns_conversation(id, owner) then return end
  redis.call('RPUSH', conversation_key(id) .. ':pending', job)
  renew_conversation(id)
end
