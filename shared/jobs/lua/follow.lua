-- follow: note that a client follows a job, so that its text is written without delay.
-- Uses: job
-- Flags: allow-oom
-- Arguments: id
-- Keys: the record
-- Returns 'ok'.
-- Promise: a job that is gone or has ended stays as it is.

local status = fields(id, 'status').status
if status and not FINAL[status] then redis.call('HSET', job_key(id), 'followed', '1') end
return 'ok'
