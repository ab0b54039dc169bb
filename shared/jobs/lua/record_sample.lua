-- record_sample: append a sample of the statistics to the ring of the last hour, unless this interval has one.
-- Uses: core
-- Flags: allow-oom
-- Arguments: sample, interval_ms:number, kept:number
--   sample is a JSON object of a few kilobytes; kept is how many samples the ring has.
-- Keys: stats:samples, stats:interval
-- Returns 1 if it wrote the sample, else 0.
-- Promise: one sample in each interval of the clock of Redis, however many processes call it; the ring never has more than kept. It
-- expires when nobody writes.

local interval = digits(math.floor(now / interval_ms))
if redis.call('GET', PREFIX .. 'stats:interval') == interval then return 0 end
local key, kept_ms = PREFIX .. 'stats:samples', kept * interval_ms
redis.call('SET', PREFIX .. 'stats:interval', interval, 'PX', kept_ms)
redis.call('LPUSH', key, interval .. ' ' .. sample)
redis.call('LTRIM', key, 0, kept - 1)
redis.call('PEXPIRE', key, kept_ms)
return 1
