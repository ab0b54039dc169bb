-- authenticate: find an API key by its digest, and count a request against the rates of its owner and of the key itself.
-- Uses: limits
-- Arguments: digest, requests_per_second:number
--   requests_per_second is the rate of owners without one of their own; 0 for none.
-- Keys: keys; keys:used; owner:<owner>:limits; rate:<owner>, rate:<owner>:<key>
-- Returns {the key's record in JSON, 0 or the milliseconds after which the request would be within the rates, the owner's own
-- limits as a flat list; of the rate that allows the fewest requests now: how many at once, how many of them are left, and the
-- milliseconds until all are (three zeros without a rate)}, the record alone if the key has expired, or an empty list if it does not
-- exist or was revoked.
-- Promise: a request beyond either rate counts against neither.

-- How often at most the time of a key's last use is written.
local USE_MS = 60000

local record = redis.call('HGET', PREFIX .. 'keys', digest)
local key = record and cjson.decode(record)
if not key or key.revoked_at ~= cjson.null then return {} end
if (tonumber(key.expires_at) or math.huge) <= now then return { record } end
if now - (tonumber(redis.call('HGET', PREFIX .. 'keys:used', key.id)) or 0) >= USE_MS then
  redis.call('HSET', PREFIX .. 'keys:used', key.id, timestamp)
end
local key_rate = key.requests_per_second ~= cjson.null and key.requests_per_second or math.huge
local wait_ms, most, left, reset_ms = take({
  { name = key.owner, rate = limit_of(key.owner, 'requests_per_second', requests_per_second), cost = 1 },
  { name = key.owner .. ':' .. key.id, rate = key_rate, cost = 1 },
})
return { record, wait_ms, redis.call('HGETALL', PREFIX .. 'owner:' .. key.owner .. ':limits'), most, left, reset_ms }
