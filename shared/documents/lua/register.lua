-- Enter a new document, unless its collection holds the same bytes already or is about to.
--
-- KEYS[1]  eh:collection:<id>             hash: must exist
-- KEYS[2]  eh:collection:<id>:documents   zset: document ids
-- KEYS[3]  eh:collection:<id>:sha256      hash: SHA-256 -> document id
-- KEYS[4]  eh:document:<new id>           hash: the new document
-- KEYS[5]  eh:collection:<id>:latest      hash: name -> id of the document that was last entered under it
-- ARGV     new id, SHA-256, key prefix of documents, name, then field and value pairs of the new document
--
-- Returns the id of the document that holds the bytes (the new one, or an earlier one that is under way or ready), or
-- false when the collection is gone. An earlier document that ended otherwise keeps its record and loses its claim on
-- the bytes; so does one under whose name other bytes came since, or going back to a former content would be impossible.
-- Sent twice with one id, it answers that id twice and writes once.
if redis.call('EXISTS', KEYS[1]) == 0 then
  return false
end
if redis.call('EXISTS', KEYS[4]) == 1 then
  return ARGV[1]
end
local alive = { ready = true, uploaded = true, parsing = true, chunking = true, embedding = true, indexing = true }
local latest = redis.call('HGET', KEYS[5], ARGV[4])
local before = latest and redis.call('HMGET', ARGV[3] .. latest, 'status', 'version') or {}
local earlier = redis.call('HGET', KEYS[3], ARGV[2])
if earlier then
  local status, name = unpack(redis.call('HMGET', ARGV[3] .. earlier, 'status', 'name'))
  local overtaken = name == ARGV[4] and latest and latest ~= earlier and alive[before[1]]
  if status and alive[status] and not overtaken then
    return earlier
  end
end
local now = redis.call('TIME')
local stamp = string.format('%d%03d', now[1], now[2] / 1000)
redis.call('HSET', KEYS[4], 'id', ARGV[1], 'sha256', ARGV[2], 'name', ARGV[4], 'status', 'uploaded', 'reason', '', 'attempt', 0,
  'pages', 0, 'pages_done', 0, 'chunks', 0, 'version', tonumber(before[2] or 0) + 1, 'created_at', stamp, 'updated_at', stamp,
  unpack(ARGV, 5))
redis.call('ZADD', KEYS[2], 0, ARGV[1])
redis.call('HSET', KEYS[3], ARGV[2], ARGV[1])
redis.call('HSET', KEYS[5], ARGV[4], ARGV[1])
return ARGV[1]
