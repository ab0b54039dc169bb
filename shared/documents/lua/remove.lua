-- Forget a document. Its vectors and files are the business of the caller, who can no longer be overtaken: an attempt
-- that still works on the document is answered 'gone' from now on.
--
-- KEYS[1]  eh:document:<id>                          hash: the document
-- KEYS[2]  eh:collection:<collection id>:documents   zset: document ids
-- KEYS[3]  eh:collection:<collection id>:sha256      hash: SHA-256 -> document id
-- KEYS[4]  eh:collection:<collection id>:latest      hash: name -> id of the document that was last entered under it
-- KEYS[5]  eh:collection:<collection id>:current     hash: name -> id of the document that is ready under it
-- ARGV     document id
--
-- Returns 1, or 0 when it was gone already.
local digest, name = unpack(redis.call('HMGET', KEYS[1], 'sha256', 'name'))
for key, field in pairs({ [KEYS[3]] = digest, [KEYS[4]] = name, [KEYS[5]] = name }) do
  if field and redis.call('HGET', key, field) == ARGV[1] then
    redis.call('HDEL', key, field)
  end
end
redis.call('ZREM', KEYS[2], ARGV[1])
return redis.call('DEL', KEYS[1])
