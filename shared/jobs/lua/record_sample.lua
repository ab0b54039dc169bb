-- record_sample: append a sample of the statistics to a ring, unless this interval has one.
-- Uses: core
-- Flags: allow-oom
-- Arguments: ring, sample, interval_ms:number, kept:number
--   sample is a JSON object of a few kilobytes; kept is how many samples the ring has.
-- Keys: stats:samples:<ring>, stats:interval:<ring>
-- Returns 1 if it wrote the sample, else 0.
-- Promise: one sample in each interval of the clock of Redis, however many processes call it; the ring never has more than kept. It
-- expires when nobody writes.

local interval = digits(math.floor(now / interval_ms))
local newest, key, kept_ms = PREFIX .. 'stats:interval:' .. ring, PREFIX .. 'stats:samples:' .. ring, kept * interval_ms
if redis.call('GET', newest) == interval then return 0 end
redis.call('SET', newest, interval, 'PX', kept_ms)
redis.call('LPUSH', key, interval .. ' ' .. sample)
redis.call('LTRIM', key, 0, kept - 1)
redis.call('PEXPIRE', key, kept_ms)
return 1
