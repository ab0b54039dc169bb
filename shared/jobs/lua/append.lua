-- append: add events of running attempts to their streams, for many jobs at once.
-- Uses: job
-- Flags: allow-oom
-- Arguments: events[job, attempt, index, kind, data, phase, output]
--   index counts the events of an attempt from 1; data is JSON; an empty phase leaves the job's phase unchanged. output is what a
--   later attempt needs to continue after this delta. A restart voids all deltas before it.
-- Keys: the records, their events and their output
-- Returns 'ok' | 'lost' for each event.
-- Promise: a stale attempt writes nothing. An event that is sent twice is written once.

local read_job = field_reader('attempt', 'status', 'written', 'first_token_at', 'phase')
local results = {}
for i, event in ipairs(events) do
  local key, index = job_key(event.job), tonumber(event.index)
  local job = read_job(event.job)
  if job.attempt ~= event.attempt or job.status ~= 'in_progress' then
    results[i] = 'lost'
  else
    if index > tonumber(job.written or 0) then
      redis.call('HSET', key, 'written', index)
      if event.kind == 'progress' then redis.call('HSET', key, 'progress', event.data) end
      if event.kind == 'delta' then
        redis.call('HSET', key, 'shown', '1')
        if not job.first_token_at then redis.call('HSET', key, 'first_token_at', timestamp) end
      end
      if event.kind == 'restart' then
        redis.call('HSET', key, 'shown', '')
        redis.call('DEL', output_key(event.job))
      end
      if event.phase ~= '' and event.phase ~= job.phase then
        redis.call('HSET', key, 'phase', event.phase, 'phase_at', timestamp)
      end
      local sequence = emit(event.job, event.kind, event.attempt, event.data)
      if event.output ~= '' then
        redis.call('APPEND', output_key(event.job), event.output)
        redis.call('HSET', key, 'output_seq', sequence)
      end
    end
    results[i] = 'ok'
  end
end
return results
