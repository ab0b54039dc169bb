-- Find the owner's collection of this name, or make it.
--
-- KEYS[1]  eh:collections:<owner>   hash: name -> collection id
-- KEYS[2]  eh:collection:<new id>   hash: written only when the name is new
-- ARGV     new id, owner, name, embedding model, then field and value pairs of its settings
--
-- Returns the id that the name has now. Two callers at once get the same id; sent twice, it changes nothing more.
local id = redis.call('HGET', KEYS[1], ARGV[3])
if id then
  return id
end
local now = redis.call('TIME')
redis.call('HSET', KEYS[1], ARGV[3], ARGV[1])
redis.call('HSET', KEYS[2], 'id', ARGV[1], 'owner', ARGV[2], 'name', ARGV[3], 'embedding_model', ARGV[4],
  'index', ARGV[1], 'created_at', string.format('%d%03d', now[1], now[2] / 1000), unpack(ARGV, 5))
return ARGV[1]
