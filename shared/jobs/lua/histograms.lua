-- histograms: read the histograms for metrics.
-- Uses: histogram
-- Flags: allow-oom
-- Arguments:
-- Keys: stats:histograms
-- Returns {the bounds of each histogram in JSON, the hash as a flat list}.
-- Promise: it changes nothing.

return { cjson.encode(BOUNDS), redis.call('HGETALL', PREFIX .. 'stats:histograms') }
