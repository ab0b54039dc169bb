-- histograms: read the histograms for metrics.
-- Uses: histogram
-- Flags: allow-oom
-- Arguments:
-- Keys: stats:histograms, stats:notes, counts
-- Returns {the bounds of each histogram in JSON, the hash as a flat list}.
-- Promise: it changes no job.

add_up_notes()
return { cjson.encode(BOUNDS), redis.call('HGETALL', PREFIX .. 'stats:histograms') }
