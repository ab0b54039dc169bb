-- read_response: read what is stored of a response, and keep it and its job for longer.
-- Uses: transition
-- Flags: allow-oom
-- Arguments: id, owner
-- Keys: the record, its response; jobs:ended
-- Returns the stored response in JSON, or nil if the owner has no such response.
-- Promise: a job that has ended is kept as long from now on as if it had ended now, or longer.

local job = fields(id, 'owner', 'status', unpack(RETENTION_FIELDS))
local response = job.owner == owner and redis.call('GET', response_key(id))
if not response then return nil end
if FINAL[job.status] then redis.call('ZADD', PREFIX .. 'jobs:ended', 'XX', 'GT', now + retention(id, job, job.status, 0), id) end
return response
