-- append: add events of running attempts to their streams, for many jobs at once.
-- Uses: job
-- Flags: allow-oom
-- Arguments: events[job, attempt, index, kind, data, phase, output]
--   index counts the events of an attempt from 1; data is JSON; an empty phase leaves the job's phase unchanged. output is what a
--   later attempt needs to continue after this delta. A restart voids all deltas before it.
-- Keys: the records, their events and their output
-- Returns for each event 'ok', 'followed' if it was written and a client follows the job, or 'lost'.
-- Promise: a stale attempt writes nothing. An event that is sent twice is written once.

local read_job = field_reader('attempt', 'status', 'written', 'first_token_at', 'phase', 'seq', 'event_limit', 'followed')
local results = {}
for i, event in ipairs(events) do
  local id, index = event.job, tonumber(event.index)
  local job = read_job(id)
  if job.attempt ~= event.attempt or job.status ~= 'in_progress' then
    results[i] = 'lost'
  else
    if index > tonumber(job.written or 0) then
      local sequence = tonumber(job.seq) + 1
      -- Written together, as there are thousands of deltas a second.
      local changes = { written = index, seq = sequence }
      if event.kind == 'progress' then changes.progress = event.data end
      if event.kind == 'delta' then
        changes.shown = '1'
        if not job.first_token_at then changes.first_token_at = timestamp end
      end
      if event.kind == 'restart' then
        changes.shown = ''
        redis.call('DEL', output_key(id))
      end
      if event.phase ~= '' and event.phase ~= job.phase then
        changes.phase, changes.phase_at = event.phase, timestamp
      end
      if event.output ~= '' then
        redis.call('APPEND', output_key(id), event.output)
        changes.output_seq = sequence
      end
      set_fields(job_key(id), changes)
      add_event(id, sequence, job.event_limit, event.kind, event.attempt, event.data)
    end
    results[i] = job.followed and 'followed' or 'ok'
  end
end
return results
