-- Enter a new document, unless its collection holds the same bytes already or is about to.
--
-- KEYS[1]  eh:collection:<id>             hash: must exist
-- KEYS[2]  eh:collection:<id>:documents   zset: document ids
-- KEYS[3]  eh:collection:<id>:sha256      hash: SHA-256 -> document id
-- KEYS[4]  eh:document:<new id>           hash: the new document
-- ARGV     new id, SHA-256, key prefix of documents, then field and value pairs of the new document
--
-- Returns the id of the document that holds the bytes (the new one, or an earlier one that is under way or ready), or
-- false when the collection is gone. An earlier document that ended otherwise keeps its record and loses its claim on
-- the bytes. Sent twice with one id, it answers that id twice and writes once.
if redis.call('EXISTS', KEYS[1]) == 0 then
  return false
end
local earlier = redis.call('HGET', KEYS[3], ARGV[2])
if earlier then
  local status = redis.call('HGET', ARGV[3] .. earlier, 'status')
  local under_way = { uploaded = true, parsing = true, chunking = true, embedding = true, indexing = true }
  if status and (status == 'ready' or under_way[status]) then
    return earlier
  end
end
local now = redis.call('TIME')
local stamp = string.format('%d%03d', now[1], now[2] / 1000)
redis.call('HSET', KEYS[4], 'id', ARGV[1], 'sha256', ARGV[2], 'status', 'uploaded', 'reason', '', 'attempt', 0,
  'pages', 0, 'pages_done', 0, 'chunks', 0, 'created_at', stamp, 'updated_at', stamp, unpack(ARGV, 4))
redis.call('ZADD', KEYS[2], 0, ARGV[1])
redis.call('HSET', KEYS[3], ARGV[2], ARGV[1])
return ARGV[1]
