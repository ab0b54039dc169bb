-- write_log: keep log lines of attempts with their jobs.
-- Uses: job
-- Flags: allow-oom
-- Arguments: lines[job, line]
--   line is JSON.
-- Keys: job:<id>, job:<id>:log
-- Returns nothing.
-- Promise: a job that was deleted gets none. A job has the latest MAX_KEPT_LINES. Sent twice, it writes the lines twice.

local MAX_KEPT_LINES = 300

for _, row in ipairs(lines) do
  local key = log_key(row.job)
  if redis.call('EXISTS', job_key(row.job)) == 1 then
    redis.call('RPUSH', key, row.line)
    redis.call('LTRIM', key, -MAX_KEPT_LINES, -1)
  end
end
