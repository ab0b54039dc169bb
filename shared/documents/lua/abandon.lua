-- End a document whose job has ended without saying how the document did.
--
-- KEYS[1]  eh:document:<id>   hash: the document
-- ARGV     job id, status, reason
--
-- Returns 1, or 0 when the document has ended already, is gone, or belongs to another job; then nothing is written.
local job, status = unpack(redis.call('HMGET', KEYS[1], 'job_id', 'status'))
local under_way = { uploaded = true, parsing = true, chunking = true, embedding = true, indexing = true }
if job ~= ARGV[1] or not under_way[status] then
  return 0
end
local now = redis.call('TIME')
redis.call('HSET', KEYS[1], 'status', ARGV[2], 'reason', ARGV[3], 'updated_at', string.format('%d%03d', now[1], now[2] / 1000))
return 1
