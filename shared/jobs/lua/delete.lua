-- delete: forget an ended job.
-- ARGV: now, id, owner
-- Keys: the record, its events and its place in the owner's list
-- Returns 'deleted' | 'missing' | the status of a job that has not ended.
-- Promise: a job that has not ended is left alone.

local id, key = ARGV[2], job_key(ARGV[2])
local job = get(id, 'status', 'owner')
if not job[1] or job[2] ~= ARGV[3] then return 'missing' end
if not FINAL[job[1]] then return job[1] end
redis.call('DEL', key, key .. ':events', key .. ':successors', key .. ':children', key .. ':deliveries')
redis.call('ZREM', PREFIX .. 'owner:' .. ARGV[3] .. ':jobs', id)
redis.call('ZREM', PREFIX .. 'jobs:dead_letters', id)
return 'deleted'
