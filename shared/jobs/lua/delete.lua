-- delete: delete the record of a job that has ended.
-- Uses: job
-- Arguments: id, owner
-- Keys: the record, its events and its entry in the owner's index
-- Returns 'deleted' | 'missing' | the status of a job that has not ended.
-- Promise: a job that has not ended does not change.

local key = job_key(id)
local job = fields(id, 'status', 'owner')
if not job.status or job.owner ~= owner then return 'missing' end
if not FINAL[job.status] then return job.status end
redis.call('DEL', key, key .. ':events', key .. ':successors', key .. ':deliveries')
redis.call('ZREM', PREFIX .. 'owner:' .. owner .. ':jobs', id)
redis.call('ZREM', PREFIX .. 'jobs:dead_letters', id)
return 'deleted'
