-- Move a document on, or end it, as the attempt that works on it says.
--
-- KEYS[1]  eh:document:<id>   hash: the document
-- ARGV     job id, attempt number, then field and value pairs
--
-- Returns 'ok', 'gone' when the document was deleted, or 'stale' when another job or a later attempt has it now; then
-- nothing is written. Sent twice, it writes the same fields again.
local job, attempt = unpack(redis.call('HMGET', KEYS[1], 'job_id', 'attempt'))
if not job then
  return 'gone'
end
if job ~= ARGV[1] or tonumber(attempt) > tonumber(ARGV[2]) then
  return 'stale'
end
local now = redis.call('TIME')
redis.call('HSET', KEYS[1], 'attempt', ARGV[2], 'updated_at', string.format('%d%03d', now[1], now[2] / 1000), unpack(ARGV, 3))
return 'ok'
