-- delete: delete a job that has ended, with its result, its events and its webhook deliveries.
-- Uses: removal
-- Flags: allow-oom
-- Arguments: id, owner
-- Keys: those of the job and of its deliveries; the owner's indexes; jobs:ended, jobs:dead_letters
-- Returns 'deleted' | 'missing' | the status of a job that has not ended.
-- Promise: a job that has not ended does not change.

local job = fields(id, 'status', 'owner')
if not job.status or job.owner ~= owner then return 'missing' end
if not FINAL[job.status] then return job.status end
remove_job(id, owner)
return 'deleted'
