-- heartbeat: record that a worker is alive, and what it can do.
-- Uses: assignment
-- Flags: allow-oom
-- Arguments: worker, description, model
--   description is a JSON object; model is the one that it serves, or empty.
-- Keys: workers, models, assignments, counts
-- Returns {'1', the model that this worker should hold} when it has an assignment, else {'0', ''}.
-- Promise: the time is that of Redis, so that a worker with a wrong clock does not look dead.

local record = cjson.decode(description)
record.seen_at = now
local earlier = redis.call('HGET', PREFIX .. 'workers', worker)
record.since = earlier and cjson.decode(earlier).since or now
if not earlier then count('workers started', record.pool or '') end
redis.call('HSET', PREFIX .. 'workers', worker, cjson.encode(record))
if model ~= '' then redis.call('HSETNX', PREFIX .. 'models', model, timestamp) end
local assignment = record.pool == 'gpu' and read_assignment(record.name)
if not assignment then return { '0', '' } end
assignment.seen_at = now
write_assignment(record.name, assignment)
return { '1', assignment.desired_model }
