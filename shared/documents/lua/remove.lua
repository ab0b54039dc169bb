-- Forget a document. Its vectors and files are the business of the caller, who can no longer be overtaken: an attempt
-- that still works on the document is answered 'gone' from now on.
--
-- KEYS[1]  eh:document:<id>                          hash: the document
-- KEYS[2]  eh:collection:<collection id>:documents   zset: document ids
-- KEYS[3]  eh:collection:<collection id>:sha256      hash: SHA-256 -> document id
-- ARGV     document id
--
-- Returns 1, or 0 when it was gone already.
local digest = redis.call('HGET', KEYS[1], 'sha256')
if digest and redis.call('HGET', KEYS[3], digest) == ARGV[1] then
  redis.call('HDEL', KEYS[3], digest)
end
redis.call('ZREM', KEYS[2], ARGV[1])
return redis.call('DEL', KEYS[1])
