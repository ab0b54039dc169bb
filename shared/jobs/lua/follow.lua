-- follow: note that a client follows jobs, so that their text is written without delay.
-- Uses: job
-- Flags: allow-oom
-- Arguments: jobs...
-- Keys: the records
-- Returns 'ok'.
-- Promise: jobs that are gone or have ended stay as they are.

for _, id in ipairs(jobs) do
  local status = fields(id, 'status').status
  if status and not FINAL[status] then redis.call('HSET', job_key(id), 'followed', '1') end
end
return 'ok'
