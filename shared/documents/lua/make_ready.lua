-- Let a document be searched, in the place of the one that was ready under its name: the one moment in which a search goes
-- over from the old version to the new.
--
-- KEYS[1]  eh:document:<id>                     hash: the document
-- KEYS[2]  eh:collection:<id>:current           hash: name -> id of the document that is ready under it
-- KEYS[3]  eh:collection:<id>:sha256            hash: SHA-256 -> document id
-- ARGV     job id, attempt number, key prefix of documents, then field and value pairs
--
-- Returns 'ok'; 'replaced' when a newer version is ready already, and then this one can never be searched; 'gone' when
-- the document was deleted, or 'stale' when another job or a later attempt has it now. Sent twice, it answers the same and
-- writes the same fields again. The document's field `replaces` names the one that it took the place of.
local id, job, attempt, name, version = unpack(redis.call('HMGET', KEYS[1], 'id', 'job_id', 'attempt', 'name', 'version'))
if not job then
  return 'gone'
end
if job ~= ARGV[1] or tonumber(attempt) > tonumber(ARGV[2]) then
  return 'stale'
end
local now = redis.call('TIME')
local stamp = string.format('%d%03d', now[1], now[2] / 1000)
local current = redis.call('HGET', KEYS[2], name)
if current and current ~= id then
  local key = ARGV[3] .. current
  local other = redis.call('HMGET', key, 'status', 'version', 'sha256')
  if other[1] == 'ready' then
    if tonumber(other[2] or 1) > tonumber(version or 1) then
      redis.call('HSET', KEYS[1], 'attempt', ARGV[2], 'updated_at', stamp, unpack(ARGV, 4))
      redis.call('HSET', KEYS[1], 'status', 'replaced', 'reason', 'A newer version of it was ready first: ' .. current .. '.')
      return 'replaced'
    end
    redis.call('HSET', key, 'status', 'replaced', 'reason', 'It was replaced by ' .. id .. '.', 'updated_at', stamp)
    if redis.call('HGET', KEYS[3], other[3]) == current then
      redis.call('HDEL', KEYS[3], other[3])
    end
    redis.call('HSET', KEYS[1], 'replaces', current)
  end
end
redis.call('HSET', KEYS[2], name, id)
redis.call('HSET', KEYS[1], 'attempt', ARGV[2], 'updated_at', stamp, unpack(ARGV, 4))
return 'ok'
