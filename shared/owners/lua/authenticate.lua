-- authenticate: find an API key by its digest, and count a request against the rates of its owner and of the key itself.
-- Uses: limits
-- Arguments: digest, requests_per_second:number
--   requests_per_second is the rate of owners without one of their own; 0 for none.
-- Keys: keys; owner:<owner>:limits; rate:<owner>, rate:<owner>:<key>
-- Returns {the key's record in JSON, 0 or the milliseconds after which the request would be within the rates, the owner's own
-- limits as a flat list; of the rate that allows the fewest requests now: how many at once, how many of them are left, and the
-- milliseconds until all are (three zeros without a rate)}, or an empty list if the key does not exist or was revoked.
-- Promise: a request beyond either rate counts against neither.

local record = redis.call('HGET', PREFIX .. 'keys', digest)
local key = record and cjson.decode(record)
if not key or key.revoked_at ~= cjson.null then return {} end
local key_rate = key.requests_per_second ~= cjson.null and key.requests_per_second or math.huge
local wait_ms, most, left, reset_ms = take({
  { name = key.owner, rate = limit_of(key.owner, 'requests_per_second', requests_per_second), cost = 1 },
  { name = key.owner .. ':' .. key.id, rate = key_rate, cost = 1 },
})
return { record, wait_ms, redis.call('HGETALL', PREFIX .. 'owner:' .. key.owner .. ':limits'), most, left, reset_ms }
