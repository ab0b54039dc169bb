-- enroll: a worker tells that it is alive and what it can do.
-- ARGV: now, worker, description (JSON object), model it serves or ''
-- Keys: workers (hash worker -> description with the time it was last seen), models (hash of every model ever served),
--       seats (hash worker's name -> its seat)
-- Returns {'1', the model that this worker should hold} when it has a seat, else {'0', ''}.
-- Promise: the time is Redis' own, so that a worker with a wrong clock is not taken for dead.

local description = cjson.decode(ARGV[3])
description.seen_at = now
redis.call('HSET', PREFIX .. 'workers', ARGV[2], cjson.encode(description))
if ARGV[4] ~= '' then redis.call('HSETNX', PREFIX .. 'models', ARGV[4], digits(now)) end
if description.pool ~= 'gpu' then return { '0', '' } end
local text = redis.call('HGET', PREFIX .. 'assignments', description.name)
if not text then return { '0', '' } end
local seat = cjson.decode(text)
seat.seen_at = now
redis.call('HSET', PREFIX .. 'assignments', description.name, cjson.encode(seat))
return { '1', seat.desired_model }
