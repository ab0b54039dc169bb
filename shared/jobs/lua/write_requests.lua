-- write_requests: note what an attempt at a request batch has written to its output, and delete the jobs of these lines.
-- Uses: removal, attempt
-- Flags: allow-oom
-- Arguments: id, attempt, lines, jobs, changes{}
--   lines are numbers of lines of the input and jobs are ids, separated by spaces; changes are fields of the state.
-- Keys: job:<id>, its requests and written; the records of the jobs
-- Returns 'ok' | 'lost'.
-- Promise: only the current attempt can write. The state, the written lines and the deleted jobs change together, so a line whose job
-- is gone is in the output. An attempt that makes progress does not count as one that was lost in a row.

local job = fields(id, 'attempt', 'status', 'owner')
if job.attempt ~= attempt or job.status ~= 'in_progress' then return 'lost' end
for line in string.gmatch(lines, '%d+') do redis.call('SETBIT', job_key(id) .. ':written', line, 1) end
for child in string.gmatch(jobs, '%S+') do
  local found = fields(child, 'status', 'owner')
  if found.owner == job.owner and FINAL[found.status] then remove_job(child, job.owner) end
end
if lines ~= '' then redis.call('HSET', job_key(id), 'lost', 0) end
set_fields(requests_key(id), changes)
return 'ok'
