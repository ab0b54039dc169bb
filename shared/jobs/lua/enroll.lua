-- enroll: a worker tells that it is alive and what it can do.
-- ARGV: now, worker, description (JSON object), model it serves or ''
-- Keys: workers (hash worker -> description with the time it was last seen), models (hash of every model ever served)
-- Returns nothing.
-- Promise: the time is Redis' own, so that a worker with a wrong clock is not taken for dead.

local description = cjson.decode(ARGV[3])
description.seen_at = now
redis.call('HSET', PREFIX .. 'workers', ARGV[2], cjson.encode(description))
if ARGV[4] ~= '' then redis.call('HSETNX', PREFIX .. 'models', ARGV[4], digits(now)) end
return redis.status_reply('OK')
